"""gpt-oss without, and with another, checkpointing than was measured: what its source says of decoded experts and of
scores."""

from __future__ import annotations

from typing import Any

import pytest

from ctxplan.models import resolve_model
from estimator import Estimate, estimate, parse_job
from tests.estimator.answers import terms

GPT_OSS = "openai/gpt-oss-20b"
EXPERTS = resolve_model(GPT_OSS, offline=True).architecture.layers[0].experts


def plan(mode: str | bool, **settings: Any) -> Estimate:
    job = {"model": GPT_OSS, "load_in_4bit": False, "use_gradient_checkpointing": mode, "max_seq_length": 8_192}
    return estimate(parse_job({**job, **settings}), resolve_model(GPT_OSS, offline=True).architecture)


@pytest.mark.parametrize(("mode", "stacks"), [("unsloth", 2), (True, 1), (False, 1)])
def test_both_stacks_of_experts_are_held_only_where_unsloths_checkpointing_recomputes(
    mode: str | bool, stacks: int
) -> None:
    assert EXPERTS
    both = (EXPERTS.gate_up, EXPERTS.down)[:stacks]
    assert terms(plan(mode), "backward")["dequantised_experts"] == 2 * EXPERTS.count * sum(both)


@pytest.mark.parametrize("mode", ["unsloth", True, False])
def test_a_short_document_is_decoded_inside_the_matrix_product_whatever_the_mode(mode: str | bool) -> None:
    assert terms(plan(mode, max_seq_length=512), "backward").get("dequantised_experts", 0) == 0


@pytest.mark.parametrize("mode", ["unsloth", True, False])
def test_an_eager_forward_makes_three_copies_of_the_scores_in_every_mode(mode: str | bool) -> None:
    heads = resolve_model(GPT_OSS, offline=True).architecture.num_attention_heads
    found = terms(plan(mode, attn_implementation="eager"), "forward")
    assert found["attention_scores_transient"] == 3 * 2 * heads * 8_192**2


def test_without_checkpointing_the_layers_below_keep_their_scores_while_the_last_one_attends() -> None:
    architecture = resolve_model(GPT_OSS, offline=True).architecture
    scores = 2 * 2 * architecture.num_attention_heads * 8_192**2
    eager, flex = (
        terms(plan(False, attn_implementation=name), "forward")["layers_kept"] for name in ("eager", "flex_attention")
    )
    below = architecture.num_hidden_layers - 1
    # Flex Attention's forward peaks in the MLP, when the last layer's own tensors are kept as well.
    assert eager / below - flex / (below + 1) == pytest.approx(scores, rel=1e-9)
