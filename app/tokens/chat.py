"""Conversations as text: by the model's own chat template, or their contents alone.

The template's environment is the one that transformers 5.17 renders in (``utils/chat_template_utils.py``): a sandbox,
blocks that leave no line of their own, ``raise_exception``, ``strftime_now``, ``tojson`` that escapes no HTML, loop
controls, and ``{% generation %}`` blocks, which only mark what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from app.tokens.sources import BadRow
from estimator.rules import shorten, shown

ROLES = {"human": "user", "gpt": "assistant"}
"""ShareGPT's words for the roles; others are kept."""
MAX_TEMPLATE_BYTES = 2**20


class ChatTemplate:
    """A model's chat template.

    Attributes:
        source: its Jinja text.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """special_tokens: what the template knows by name, such as ``bos_token``."""
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._compiled: Any = None

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Any = None) -> str:
        """The conversation as the model is trained on it. Raises BadRow where the template refuses it."""
        from jinja2 import TemplateError

        try:
            if self._compiled is None:
                self._compiled = _environment().from_string(self.source)
            text: str = self._compiled.render(
                messages=messages, tools=tools, documents=None, add_generation_prompt=False, **self._special_tokens
            )
        except TemplateError as error:
            raise BadRow(f"the chat template refuses it: {shorten(str(error), 200)}") from None
        except Exception as error:  # a template may fail on what it was not written for in any way that Python knows
            raise BadRow(f"the chat template fails: {type(error).__name__}: {shorten(str(error), 200)}") from None
        return text


def read_template(directory: Path) -> ChatTemplate | None:
    """The chat template beside a tokenizer; None without one, or without Jinja to render it."""
    if find_spec("jinja2") is None:
        return None
    config = _object(directory / "tokenizer_config.json")
    file = directory / "chat_template.jinja"
    source: Any = _text(file) if file.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several by name, in older configs
        named = [entry for entry in source if isinstance(entry, dict) and entry.get("name") == "default"]
        source = named[0].get("template") if named else None
    if not isinstance(source, str) or not source:
        return None
    return ChatTemplate(source, _special_tokens({**_object(directory / "special_tokens_map.json"), **config}))


def messages_of(value: Any, key: str) -> list[dict[str, Any]]:
    """A column's conversation, with ``role`` and ``content`` (ShareGPT's ``from`` and ``value`` become those).

    Raises:
        BadRow: it is none, or holds what is no text, whose tokens a tokenizer does not count.
    """
    if not isinstance(value, list) or not value:
        raise BadRow(f"{key}: {shown(value)} is no conversation")
    return [_message(message, f"{key}[{index}]") for index, message in enumerate(value)]


def contents(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the messages say, a line break between them."""
    return "\n".join(_content(message.get("content")) for message in messages)


def _message(message: Any, key: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise BadRow(f"{key}: {shown(message)} is no message")
    if "from" in message and "role" not in message:
        role = message["from"]
        message = {"role": ROLES.get(role, role) if isinstance(role, str) else role, "content": message.get("value")}
    if not isinstance(message.get("role"), str):
        raise BadRow(f"{key}: has no role")
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    if not isinstance(content, str | list | None) or not all(_is_text(part) for part in parts):
        raise BadRow(f"{key}: its content is no text")
    if content is None and not message.get("tool_calls"):
        raise BadRow(f"{key}: has no content")
    # Arrow fills what a row lacks with null; a template takes a key that is there for one that was given.
    return {name: held for name, held in message.items() if held is not None}


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)


def _content(content: Any) -> str:
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    tokens = {}
    for name, value in config.items():
        content = value.get("content") if isinstance(value, Mapping) else value
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    return tokens


def _environment() -> Any:
    from jinja2 import ext, nodes
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """``{% generation %}``: its contents, unmarked."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.LoopControlExtension]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # the template's own wish
    return environment


def _object(file: Path) -> dict[str, Any]:
    text = _text(file)
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = {}
    return value if isinstance(value, dict) else {}


def _text(file: Path) -> str | None:
    """A small file's text, None where there is none that can be read."""
    try:
        if file.stat().st_size > 16 * MAX_TEMPLATE_BYTES:
            return None
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
