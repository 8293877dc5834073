"""Mixture-of-experts layers on the generated path: routed rows, expert stacks, and the weights that are dequantised
whole.

R = T * k routed rows, E experts, Ie = the experts' intermediate size. Read from allocator snapshots of Qwen3-30B-A3B
and gpt-oss-20b (H200) and Mixtral-8x7B shapes (H100, torch 2.11); source: unsloth_zoo/temporary_patches/moe_utils.py
``forward_native_grouped_mm``. The routing is taken as even; an uneven one moves rows between experts and leaves
these sums as they are.
"""

from __future__ import annotations

from estimator import checkpointing
from estimator.architecture import Architecture, Experts
from estimator.ledger import LiveSet, Row, total
from estimator.resolve import Run
from estimator.sizes import Sizes

FUSED_MAX_ROWS = 192
"""Rows an expert from which its weights are decoded as a stack (moe_utils.py ``_mxfp4_fused_enabled``)."""

PINNED = "unsloth_zoo/temporary_patches/moe_utils.py _moe_recompute_default"
MEASURED = "Qwen3-30B-A3B at 2,048 to 16,384 tokens, NF4 and 16 bit, r 16 and 32, H100 and H200"
WIDE = "an allocator snapshot of 3 layers of Mixtral-8x7B at 8,192 tokens, 16 bit, r 16, torch 2.11, H100"
WIDE_FORWARD = "forward peaks of 3 layers of Mixtral-8x7B at 2,048 and 8,192 tokens, 16 bit, r 16, torch 2.11, H100"
EXPERT_TARGETS = frozenset({"gate_proj", "up_proj", "down_proj", "gate_up_proj"})
GROUPED = "unsloth_zoo/temporary_patches/moe_utils.py forward_native_grouped_mm"


def experts_of(architecture: Architecture) -> Experts | None:
    """The experts of the model's sparse layers; None for a dense model."""
    return next((group.experts for group in architecture.layers if group.experts), None)


def forward(run: Run, z: Sizes, experts: Experts) -> LiveSet:
    """The wider of two moments of a forward whose graph is not kept: the down projection, and the activation, where
    gate and up lie whole, each of them copied out, and their product."""
    routed = z.tokens * experts.per_token
    rows = 2 * routed * run.architecture.hidden_size
    width = _gate_up(routed, experts)
    copies = 1 if run.quantised and not run.architecture.attention_sinks else 2
    projected = [
        ("routed_rows", copies * rows, f"{copies} * 2 R H", GROUPED),
        ("expert_gate_up", width, "2 R 2 Ie", GROUPED),
        _dequantised(run, z, experts),
    ]
    activated = [
        ("expert_gate_up", 2 * width, "2 * 2 R 2 Ie", WIDE_FORWARD),
        ("expert_product", width // 2, "2 R Ie", WIDE_FORWARD),
    ]
    if run.architecture.attention_sinks:
        return projected
    return max(projected, activated, key=total)


def backward(run: Run, z: Sizes, experts: Experts) -> list[LiveSet]:
    """The moments of the experts' recompute and backward that can be its widest."""
    routed = z.tokens * experts.per_token
    rows = 2 * routed * run.architecture.hidden_size
    width = _gate_up(routed, experts)
    entering = ("mlp_input", 2 * z.u, "2 u", MEASURED)
    if run.architecture.attention_sinks:
        return [
            [
                ("routed_rows", rows, "2 R H", GROUPED),
                ("expert_gate_up", 4 * width, "4 * 2 R 2 Ie", GROUPED),
                (
                    "expert_bias_rows",
                    2 * width,
                    "4 R 2 Ie",
                    "unsloth_zoo/temporary_patches/moe_utils.py _gather_expert_bias",
                ),
                *_decoded(run, z, experts),
                entering,
            ]
        ]
    gathered = [
        ("routed_rows", 4 * rows, "4 * 2 R H", MEASURED),
        ("expert_gate_up", width, "2 R 2 Ie", MEASURED),
        ("expert_output_gradient", z.u, "u", MEASURED),
        _factors(run, experts, down_twice=True),
        entering,
    ]
    activated = [
        ("routed_rows", rows, "2 R H", WIDE),
        ("expert_gate_up", width, "2 R 2 Ie", WIDE),
        ("expert_gate_up_gradients", 3 * width, "3 * 2 R 2 Ie, each half padded, and their sum", WIDE),
        ("expert_product_gradients", width, "2 * 2 R Ie, of the projection and of its LoRA", WIDE),
        _factors(run, experts, down_twice=False),
    ]
    multiplied = [
        ("routed_rows", rows, "2 R H", MEASURED),
        ("expert_gate_up", 2 * width, "2 * 2 R 2 Ie", MEASURED),
        _factors(run, experts, down_twice=False),
        _dequantised(run, z, experts),
        entering,
    ]
    return [gathered, activated, *([multiplied] if run.quantised else [])]


def _factors(run: Run, experts: Experts, *, down_twice: bool) -> Row:
    """16-bit copies of the experts' fp32 LoRA factors, and of the gradients of the down projection's."""
    adapted = run.targets & EXPERT_TARGETS
    gate_up = run.architecture.hidden_size + 2 * experts.intermediate_size
    down = experts.intermediate_size + run.architecture.hidden_size
    one = 2 * experts.count * run.job.r
    size = one * (gate_up + down * (2 if down_twice else 1)) if adapted else 0
    return ("expert_lora_factors", size, "2 E r (2 H + 3 Ie), and 2 E r (Ie + H) of gradients", MEASURED)


def _gate_up(routed: int, experts: Experts) -> int:
    return 2 * routed * 2 * experts.intermediate_size


def _dequantised(run: Run, z: Sizes, experts: Experts) -> Row:
    size = 2 * experts.count * experts.gate_up if run.quantised and not _decoded_in_the_product(run, z, experts) else 0
    return ("dequantised_experts", size, "2 E H 2 Ie", "unsloth/kernels/nf4.py dequantize_nf4, the whole stack")


def _decoded(run: Run, z: Sizes, experts: Experts) -> LiveSet:
    """What a backward holds of a packed MXFP4 layer's experts in 16 bit.

    Both stacks where Unsloth's own checkpointing recomputes the layer: it marks the recompute, in which they are kept
    until the layer's backward has used them. One stack at a time else: torch's checkpointing marks nothing, and without
    any a stack is decoded again where the backward needs it (moe_utils.py ``_GroupedMMRecompute``).

    Source: moe_utils.py ``_moe_recompute_default``. Measured with ``"unsloth"`` on an H100 where experts are decoded,
    the structure's peak within 1.3 %: gpt-oss-20b +0.1 % at 2,048 tokens and +1.1 % at 8,192, 4 layers of gpt-oss-120b
    -1.2 % and +0.5 %. Nothing has been measured in the other modes.
    """
    if run.storage != "mxfp4" or _decoded_in_the_product(run, z, experts):
        return []
    if checkpointing.mode(run, z) != "unsloth":
        return [_dequantised(run, z, experts)]
    size = 2 * experts.count * (experts.gate_up + experts.down)
    return [("dequantised_experts", size, "2 E (H 2 Ie + Ie H)", PINNED)]


def _decoded_in_the_product(run: Run, z: Sizes, experts: Experts) -> bool:
    """Whether few enough rows reach an expert that its MXFP4 blocks are decoded inside the matrix product."""
    return run.storage == "mxfp4" and z.tokens * experts.per_token < FUSED_MAX_ROWS * experts.count
