"""Writes a checkpoint of true shapes that takes no room: tensors are holes of a sparse safetensors file.

Memory does not depend on the values of a dense model's weights; `probes.child.fill` puts random ones in place once the
model is on the device.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.child.tensors import Stored, checkpoint_tensors

SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def write_checkpoint(config: Mapping[str, Any], folder: Path) -> None:
    """Write ``config.json``, a small tokenizer and one ``model.safetensors`` into ``folder``.

    Raises:
        OSError: the disk has no room even for the header. UnsupportedArchitecture: a quantisation that is not written.
    """
    tensors = checkpoint_tensors(config)
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    written = {**config, **special, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(written, indent=1), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(special), encoding="utf-8")
    write_tokenizer(folder)
    write_safetensors(tensors, folder / "model.safetensors")


def write_safetensors(tensors: Sequence[Stored], file: Path) -> None:
    """The header, the few tensors that have data, and holes for the others."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        span = [end, end + tensor.size]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": span}
        end = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        start = stream.tell()
        for tensor in tensors:
            if tensor.data is not None:
                stream.seek(start + header[tensor.name]["data_offsets"][0])
                stream.write(tensor.data)
        stream.truncate(start + end)


def write_tokenizer(folder: Path) -> None:
    """A tokenizer that makes one token of every letter, whichever class a family wraps it in: bytes, and no merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # U+2581 is the space of SentencePiece families, which some tokenizer classes put in front of a text.
    tokens = [*SPECIAL.values(), *sorted(pre_tokenizers.ByteLevel.alphabet()), "\u2581"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=2**27, **SPECIAL).save_pretrained(folder)
