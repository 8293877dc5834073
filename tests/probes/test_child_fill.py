"""Weights of a synthetic checkpoint get values with which a model can run, in the memory that they have."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from probes.child import fill  # noqa: E402 - after the check that torch is there
from probes.child.fill import STD, fill_weights  # noqa: E402

FP8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)


def frozen(tensor: Any) -> Any:
    return torch.nn.Parameter(tensor, requires_grad=False)


def module(**tensors: Any) -> Any:
    """A module that holds these parameters."""
    holder = torch.nn.Module()
    for name, tensor in tensors.items():
        holder.register_parameter(name, tensor)
    return holder


def storages(*tensors: Any) -> list[tuple[int, int]]:
    return [(tensor.data_ptr(), tensor.untyped_storage().nbytes()) for tensor in tensors]


def test_floats_are_small_biases_are_zero_and_norms_are_one() -> None:
    model = torch.nn.ModuleDict({"linear": torch.nn.Linear(256, 256), "norm": torch.nn.LayerNorm(256)})
    before = storages(*model.parameters())
    fill_weights(model)
    assert storages(*model.parameters()) == before
    assert float(model["linear"].weight.detach().std()) == pytest.approx(STD, rel=0.05)
    assert not model["linear"].bias.detach().any()
    assert bool((model["norm"].weight == 1).all())


def test_the_same_seed_gives_the_same_values() -> None:
    first, second, other = (torch.nn.Linear(16, 16, bias=False) for _ in range(3))
    fill_weights(first, seed=1)
    fill_weights(second, seed=1)
    fill_weights(other, seed=2)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)


def test_nf4_weights_and_their_nested_scales_dequantise_to_what_a_trained_linear_has() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(
        torch.zeros(256, 512), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    state.offset = torch.tensor(0.03)
    weight = frozen(packed)
    weight.quant_state = state
    parts = (weight, state.absmax, state.state2.absmax)
    before = storages(*parts)
    fill_weights(module(weight=weight))
    assert storages(*parts) == before
    values = functional.dequantize_4bit(weight.data, state)
    assert values.isfinite().all()
    assert float(values.std()) == pytest.approx(STD, rel=0.5)


def test_nf4_weights_without_nested_scales_are_filled_too() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(torch.zeros(256, 512), blocksize=64, quant_type="nf4")
    weight = frozen(packed)
    weight.quant_state = state
    fill_weights(module(weight=weight))
    values = functional.dequantize_4bit(weight.data, state)
    assert float(values.std()) == pytest.approx(STD, rel=0.5)


def test_int8_rows_deviate_as_much_as_sixteen_bit_ones() -> None:
    weight = frozen(torch.zeros(128, 512, dtype=torch.int8))
    weight.SCB = torch.zeros(128)
    before = storages(weight, weight.SCB)
    fill_weights(module(weight=weight))
    assert storages(weight, weight.SCB) == before
    values = weight.data.float() * weight.SCB[:, None] / 127
    assert float(values.std()) == pytest.approx(STD, rel=0.02)
    assert abs(float(values.mean())) < STD / 10
    assert int(weight.data.min()) >= -127  # bitsandbytes has no -128


def test_mxfp4_blocks_are_random_and_their_scales_are_exponents_near_a_sixtieth() -> None:
    experts = module(
        gate_up_proj_blocks=frozen(torch.zeros(2, 64, 4, 16, dtype=torch.uint8)),
        gate_up_proj_scales=frozen(torch.zeros(2, 64, 4, dtype=torch.uint8)),
    )
    experts.register_buffer("down_proj_blocks", torch.zeros(2, 64, 4, 16, dtype=torch.uint8))
    before = storages(*experts.parameters(), experts.down_proj_blocks)
    fill_weights(experts)
    assert storages(*experts.parameters(), experts.down_proj_blocks) == before
    assert bool((experts.gate_up_proj_scales == fill.MXFP4_SCALE).all())
    for blocks in (experts.gate_up_proj_blocks, experts.down_proj_blocks):
        assert len(blocks.unique()) == 256
    largest_e2m1 = 6.0
    assert STD < largest_e2m1 * 2.0 ** (fill.MXFP4_SCALE - 127) < 4 * STD


@pytest.mark.parametrize("dtype", FP8, ids=str)
def test_fp8_weights_of_every_kind_are_numbers_and_not_all_alike(dtype: Any) -> None:
    weight = frozen(torch.zeros(256, 256, dtype=dtype))
    before = storages(weight)
    fill_weights(module(weight=weight))
    assert storages(weight) == before
    values = weight.data.float()
    assert values.isfinite().all()
    assert len(values.unique()) > 60


@pytest.mark.parametrize("as_buffer", [False, True], ids=["parameter", "buffer"])
@pytest.mark.parametrize("name", fill.FP8_SCALES)
def test_fp8_weights_times_their_scales_deviate_as_much_as_sixteen_bit_ones(name: str, as_buffer: bool) -> None:
    linear, scale = module(weight=frozen(torch.zeros(256, 256, dtype=torch.float8_e4m3fn))), torch.zeros(256, 1)
    register: Callable[..., None] = linear.register_buffer if as_buffer else linear.register_parameter
    register(name, scale if as_buffer else frozen(scale))
    fill_weights(linear)
    values = linear.weight.data.float() * getattr(linear, name)
    assert float(values.std()) == pytest.approx(STD, rel=0.05)


def test_a_tensor_that_wraps_its_codes_and_scale_is_filled_through_them() -> None:
    """As torchao's Float8Tensor, which says that it is bfloat16 and can draw nothing itself."""
    wrapped = SimpleNamespace(qdata=torch.zeros(64, 64, dtype=torch.float8_e4m3fn), scale=torch.zeros(64, 1))
    fill._fill("layer.weight", wrapped)
    assert float((wrapped.qdata.float() * wrapped.scale).std()) == pytest.approx(STD, rel=0.1)
