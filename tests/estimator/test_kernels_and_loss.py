"""Attention kernels by device, what they keep, and how the fused loss is cut."""

from __future__ import annotations

from typing import Any

import pytest

from ctxplan.models import resolve_model
from estimator import estimate, parse_job
from estimator.allocator import GIB, MIB, block, next_power_of_two
from estimator.architecture import Architecture
from estimator.attention import padded
from estimator.device import find_device
from estimator.kernels import choose_kernel
from estimator.loss import plan_loss
from estimator.resolve import resolve
from estimator.sizes import sizes_of

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def shape(model: str) -> Architecture:
    return resolve_model(model, offline=True).architecture


class TestTheKernel:
    @pytest.mark.parametrize(
        ("gpu", "kernel"),
        [
            ("H100-80GB", "cudnn"),
            ("H200-141GB", "cudnn"),
            ("A100-80GB", "flash"),
            ("L4-24GB", "flash"),
            ("RTX-3090-24GB", "flash"),
            ("B200-180GB", "flash"),
            ("RTX-5090-32GB", "flash"),
            ("T4-16GB", "efficient"),
            ("V100-32GB", "efficient"),
        ],
    )
    def test_of_sdpa_follows_the_card(self, gpu, kernel):
        assert choose_kernel("sdpa", shape(LLAMA), find_device(gpu), unsloth_forward=True) == kernel

    def test_of_soft_capped_attention_is_compiled_in_unsloths_forward_alone(self):
        gemma, card = shape("google/gemma-2-9b-it"), find_device("H100-80GB")
        assert choose_kernel("sdpa", gemma, card, unsloth_forward=True) == "softcap_compiled"
        assert choose_kernel("sdpa", gemma, card, unsloth_forward=False) == "cudnn"

    @pytest.mark.parametrize(
        ("asked", "kernel"),
        [
            ("flash_attention_2", "flash_attention_2"),
            ("xformers", "xformers"),
            ("flex_attention", "flex"),
            ("eager", "eager"),
        ],
    )
    def test_that_is_asked_for_is_taken(self, asked, kernel):
        assert choose_kernel(asked, shape(LLAMA), find_device("T4-16GB"), unsloth_forward=True) == kernel

    @pytest.mark.parametrize(
        ("versions", "attention"),
        [
            ({}, "sdpa"),
            ({"flash_attn": "2.8.3"}, "flash_attention_2"),
            ({"xformers": "0.0.33"}, "xformers"),
            ({"flash_attn": "2.8.3", "xformers": "0.0.33"}, "flash_attention_2"),
        ],
    )
    def test_follows_the_installed_packages(self, versions, attention):
        answer = estimate(parse_job({"model": LLAMA, "versions": versions}), shape(LLAMA))
        assert answer.job.attn_implementation == attention


@pytest.mark.parametrize(("length", "rows"), [(1, 128), (127, 128), (128, 256), (8192, 8320), (89_389, 89_472)])
def test_cudnn_pads_to_the_next_128_tokens_and_never_by_none(length, rows):
    job = parse_job({"model": LLAMA, "max_seq_length": 131_072, "per_device_train_batch_size": 3})
    run = resolve(job, shape(LLAMA), find_device("H100-80GB"))
    z = sizes_of(run.architecture, max_seq_length=131_072, sequences=3, length=length)
    assert padded(run, z) == (3 * rows, 3 * rows * 2 * 4096, 3 * rows * 2 * 1024)


def loss(**changes: Any):
    settings = {
        "rows": 8191,
        "hidden_size": 4096,
        "vocab_size": 128_256,
        "head_trains": False,
        "free_bytes": 40 * GIB,
        "total_bytes": 80 * GIB,
        "capability": 9,
    }
    return plan_loss(**{**settings, **changes})


class TestTheFusedLoss:
    def test_in_tiles_takes_256_mib_of_logits_and_its_rows(self):
        plan = loss()
        assert (plan.kind, plan.rows, plan.budget_bytes) == ("tiled", 4096, 2 * GIB)
        logits, accumulator, maximum = 256 * MIB, 4 * 4096 * 4096, 4 * 4096
        gathered = 2 * (2 * 4096 * 4096)
        partials = 8 * 8 * 4096 * 4  # eight tiles of 16,384 hold 128,256
        rows = 2 * block(4 * 8191) + 2 * block(8 * 8191)
        assert plan.buffer_bytes == logits + accumulator + maximum + gathered + partials + rows

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [
            ({"rows": 4096}, "tiled"),
            ({"rows": 4095}, "row_chunks"),
            ({"rows": 5, "total_bytes": int(24.5 * GIB)}, "tiled"),
            ({"rows": 5, "total_bytes": int(24.5 * GIB) + 1}, "row_chunks"),
            ({"head_trains": True}, "row_chunks"),
            ({"capability": 7}, "row_chunks"),
            ({"vocab_size": 32_768}, "row_chunks"),
            ({"vocab_size": 32_769}, "tiled"),
        ],
    )
    def test_is_cut_by_rows_or_in_tiles(self, changes, kind):
        assert loss(**changes).kind == kind

    def test_by_rows_takes_a_power_of_two_between_512_and_4096(self):
        assert loss(rows=3000).rows == 512  # 3000 * 4096 / 128256 is 95; the least is 2^9
        assert loss(rows=100_000, head_trains=True).rows == 2048  # 3193, rounded down
        assert loss(rows=1_000_000, head_trains=True).rows == 4096
        assert loss(rows=3).rows == 3

    def test_budget_is_half_of_what_is_free_up_to_2_gib(self):
        assert loss(free_bytes=2 * GIB).budget_bytes == GIB
        assert loss(free_bytes=400 * GIB).budget_bytes == 2 * GIB
        starved = loss(rows=1_000_000, head_trains=True, free_bytes=GIB)
        assert starved.rows == GIB // 2 // (4 * 128_256)

    @pytest.mark.parametrize("free", [0, 1, 1000])
    def test_still_runs_where_nothing_is_free(self, free):
        assert loss(free_bytes=free).rows >= 1
        assert loss(free_bytes=free, head_trains=True).rows >= 1


def test_the_allocator_counts_blocks_of_512():
    assert [block(n) for n in (0, 1, 512, 513)] == [0, 512, 512, 1024]


def test_pinned_memory_is_rounded_to_powers_of_two():
    assert [next_power_of_two(n) for n in (1, 2, 3, 1024, 1025)] == [1, 2, 4, 1024, 2048]
    assert next_power_of_two(1_464_549_376) == 2 * GIB  # u of the 70B at 89,389 tokens
