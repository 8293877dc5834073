"""The ``quantization_config`` of a pre-quantised checkpoint.

Source: transformers 5.17.0, ``utils/quantization_config.py``: ``BitsAndBytesConfig``, ``Mxfp4Config``,
``FineGrainedFP8Config``.
"""

from __future__ import annotations

from estimator.architecture import Quantization
from estimator.errors import UnsupportedArchitecture
from estimator.families.fields import Config
from estimator.rules import shown

METHODS = ("bitsandbytes", "mxfp4", "fp8")
_FP8_TILE = [128, 128]


def read_quantization(config: Config, *, expert_stacks: bool = False) -> Quantization | None:
    """How the checkpoint is stored, None where it is not quantised.

    Args:
        expert_stacks: whether the family's experts are what MXFP4 quantises (gpt_oss).

    Raises:
        UnsupportedArchitecture: a method that is not modelled.
    """
    given = config.inside("quantization_config")
    if given is None:
        return None
    four = given.flag("load_in_4bit", given.flag("_load_in_4bit", False))
    eight = given.flag("load_in_8bit", given.flag("_load_in_8bit", False))
    method = given.raw("quant_method") or ("bitsandbytes" if four or eight else None)
    if method == "bitsandbytes" and four != eight:
        return _bitsandbytes(given, four)
    if method == "bitsandbytes":
        raise given.refused("load_in_4bit", "one of load_in_4bit and load_in_8bit true")
    if method == "mxfp4" and expert_stacks:
        return Quantization(method="mxfp4", skip_modules=given.strings("modules_to_not_convert") or ())
    if method == "fp8":
        return _fp8(given)
    raise UnsupportedArchitecture(
        f"{shown(method)} weights are not modelled; support would need the sizes of their tensors and scales",
        key=given.path("quant_method"),
        allowed=", ".join(METHODS) + " (mxfp4 for gpt_oss only)",
    )


def _bitsandbytes(given: Config, four: bool) -> Quantization:
    given.text("bnb_4bit_quant_type", "fp4", ("nf4", "fp4"))
    return Quantization(
        method="bitsandbytes_4bit" if four else "bitsandbytes_8bit",
        double_quant=four and given.flag("bnb_4bit_use_double_quant", False),
        skip_modules=given.strings("llm_int8_skip_modules") or (),
    )


def _fp8(given: Config) -> Quantization:
    tile = given.raw("weight_block_size")
    if tile is not None and list(tile if isinstance(tile, list | tuple) else ()) != _FP8_TILE:
        raise UnsupportedArchitecture(
            f"fp8 scales of {shown(tile)} are not modelled",
            key=given.path("weight_block_size"),
            allowed="[128, 128]",
        )
    return Quantization(method="fp8", skip_modules=given.strings("modules_to_not_convert") or ())
