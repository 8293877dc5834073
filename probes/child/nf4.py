"""The tensors of an NF4 weight with double quantisation, as bitsandbytes stores them.

Source: bitsandbytes/functional.py ``QuantState.as_dict(packed=True)``, ``create_dynamic_map`` and the NF4 table of
``get_4bit_type``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod

from probes.child.tensors import Stored

BLOCK, NESTED_BLOCK = 64, 256
OFFSET = 0.03
"""Mean of the blocks' absmax: what the linears of a trained model have, so that activations stay finite."""
NESTED_ABSMAX = 0.001


def nf4_tensors(name: str, shape: Sequence[int]) -> list[Stored]:
    """What stands in the file for the weight ``name`` of ``shape``; packed values and absmax are left as holes."""
    from bitsandbytes.functional import create_dynamic_map, get_4bit_type

    elements = prod(shape)
    blocks = -(-elements // BLOCK)
    nested = -(-blocks // NESTED_BLOCK)
    state = {
        "quant_type": "nf4",
        "blocksize": BLOCK,
        "dtype": "bfloat16",
        "shape": list(shape),
        "nested_blocksize": NESTED_BLOCK,
        "nested_dtype": "float32",
        "nested_offset": OFFSET,
    }
    packed_state = json.dumps(state).encode()
    return [
        Stored(name, "U8", (-(-elements // 2), 1)),
        Stored(f"{name}.absmax", "U8", (blocks,)),
        Stored(f"{name}.quant_map", "F32", (16,), _floats(get_4bit_type("nf4", device="cpu"))),
        Stored(f"{name}.nested_absmax", "F32", (nested,)),
        Stored(f"{name}.nested_quant_map", "F32", (256,), _floats(create_dynamic_map())),
        Stored(f"{name}.quant_state.bitsandbytes__nf4", "U8", (len(packed_state),), packed_state),
    ]


def _floats(values: object) -> bytes:
    import torch

    raw: bytes = torch.as_tensor(values, dtype=torch.float32).contiguous().numpy().tobytes()
    return raw
