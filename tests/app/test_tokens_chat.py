"""Conversations are written as transformers writes them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from app.tokens.chat import ChatTemplate, contents, messages_of, read_template
from app.tokens.fields import choose_fields
from app.tokens.sources import BadRow
from app.tokens.tokenizer import ModelTokenizer
from tests.app.tiny_tokenizer import TEMPLATE, write_tokenizer

TALK = [{"role": "system", "content": "<be> brief & kind"}, {"role": "user", "content": "ä"}]
TOOLS = [{"name": "look", "note": "<ä>"}]
TEMPLATES = {
    "the test's own": TEMPLATE,
    "dates and blocks": (
        "{% set when = strftime_now('%Y') %}\n{%- for m in messages %}\n    {% if m['role'] == 'user' %}\n"
        "  {{ when }} {{ m.content | trim }}{{ eos_token }}\n    {% endif %}\n{% endfor %}\n"
    ),
    "tools in JSON": "{{ bos_token }}{{ tools | tojson(indent=2) }}{% if add_generation_prompt %}x{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_conversation_is_the_text_that_transformers_makes(tmp_path: Path, name: str) -> None:
    """transformers itself, which takes seconds to import."""
    directory = write_tokenizer(tmp_path / "model", TEMPLATES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import PreTrainedTokenizerFast

        theirs: Any = PreTrainedTokenizerFast.from_pretrained(directory)
        expected = theirs.apply_chat_template(TALK, tools=TOOLS, tokenize=False)
    template = read_template(directory)
    assert template
    assert template.render(TALK, TOOLS) == expected


@pytest.mark.parametrize("where", ["chat_template.jinja", "a list", "special_tokens_map.json"])
def test_a_template_is_found_wherever_a_model_keeps_it(tmp_path: Path, where: str) -> None:
    template = "{{ bos_token }}!"
    config: dict[str, Any] = {"bos_token": "<s>", "chat_template": template}
    if where == "a list":
        config["chat_template"] = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
    elif where == "chat_template.jinja":
        config["chat_template"] = "another"
        (tmp_path / where).write_text(template)
    else:
        (tmp_path / where).write_text(json.dumps({"bos_token": {"content": config.pop("bos_token")}}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = read_template(tmp_path)
    assert found
    assert found.render(TALK) == "<s>!"


@pytest.mark.parametrize("config", [None, "", "[]", "{", '{"chat_template": 3}', '{"chat_template": []}'])
def test_there_is_no_template_where_none_is_kept(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(config)
    assert read_template(tmp_path) is None


def test_without_jinja_conversations_are_counted_by_their_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.tokens.chat.find_spec", lambda name: None)
    model = ModelTokenizer(write_tokenizer(tmp_path / "model", TEMPLATE) / "tokenizer.json", "tiny")
    fields = choose_fields({"messages": TALK}, (), model.chat_template, "a.jsonl")
    assert fields.text_of({"messages": TALK}) == contents(messages_of(TALK, "messages")) == "<be> brief & kind\nä"


@pytest.mark.parametrize("template", [TEMPLATE, "{{ 1 / 0 }}", "{% if %}", "{{ ''.__class__.__mro__[1] }}"])
def test_what_a_template_refuses_or_may_not_do_is_a_bad_row(template: str) -> None:
    with pytest.raises(BadRow, match="the chat template"):
        ChatTemplate(template, {}).render([{"role": "nobody", "content": "x"}])


def test_a_prompt_and_a_completion_of_messages_are_one_conversation_with_its_tools() -> None:
    template = ChatTemplate(TEMPLATE, {"bos_token": "<s>"})
    row = {"prompt": TALK[:1], "completion": TALK[1:], "tools": json.dumps(TOOLS)}
    fields = choose_fields(row, (), template, "a.jsonl")
    assert fields.needed == ("prompt", "completion", "tools")
    assert fields.text_of(row) == template.render(TALK, TOOLS)
    with pytest.raises(BadRow, match="tools"):
        fields.text_of({**row, "tools": "{"})


def test_what_arrow_fills_with_null_is_as_if_it_were_not_there() -> None:
    filled = {"role": "assistant", "content": None, "tool_calls": [{"name": "look"}], "name": None}
    assert messages_of([filled], "messages") == [{"role": "assistant", "tool_calls": [{"name": "look"}]}]
