"""A small tokenizer, trained here: byte-level BPE that begins each text with ``<s>``, and a chat template for it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

SENTENCES = (
    "a planner of memory says how long a context can be",
    "documents are counted in tokens, and tokens in bytes",
    "the longest of them decides what nothing cuts: 123 or 4567",
)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role not in ('system', 'user', 'assistant', 'tool') %}"
    "{{ raise_exception('no such role') }}{% endif %}"
    "<|{{ message.role }}|>\n"
    "{% generation %}{{ message.content }}{% endgeneration %}{% if loop.last %}{% break %}{% endif %}\n{% endfor %}"
    "{% if tools %}\n{{ tools | tojson }}{% endif %}"
)


@cache
def tiny_tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def write_tokenizer(directory: Path, template: str | None = None) -> Path:
    """Write a model's directory with the tokenizer, and a chat template where one is given."""
    directory.mkdir(parents=True, exist_ok=True)
    tiny_tokenizer().save(str(directory / "tokenizer.json"))
    if template is not None:
        eos = {"__type": "AddedToken", "content": "</s>", "lstrip": False, "rstrip": False, "special": True}
        config = {"bos_token": "<s>", "eos_token": eos, "chat_template": template}
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def length(text: str, *, special: bool = True) -> int:
    """A text's length, one text at a time."""
    return len(tiny_tokenizer().encode(text, add_special_tokens=special).ids)
