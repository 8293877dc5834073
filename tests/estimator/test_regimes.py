"""Where Unsloth changes its mind: what free memory, length and shape switch, and what that does to the peak."""

from __future__ import annotations

from typing import Any

import pytest

from ctxplan.models import resolve_model
from estimator import Estimate, estimate, max_context, parse_job
from estimator.allocator import GIB, MIB
from estimator.device import find_device
from estimator.host import host_plan
from tests.estimator.answers import terms

MODEL_70B = "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"
MODEL_8B = "meta-llama/Llama-3.1-8B-Instruct"
LONG = 89_389


def plan(model: str, **settings: Any) -> Estimate:
    job = parse_job({"model": model, "gpu": "H100-80GB", **settings})
    return estimate(job, resolve_model(model, offline=True).architecture)


def plan_70b(length: int, **settings: Any) -> Estimate:
    return plan(MODEL_70B, max_seq_length=length, r=32, **settings)


def plan_8b(length: int, **settings: Any) -> Estimate:
    return plan(MODEL_8B, max_seq_length=length, **settings)


def first_true(low: int, high: int, key: str) -> int:
    """The first length of the 70B job in (low, high] whose regime has ``key`` on."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if plan_70b(middle).regime[key] else (middle, high)
    return high


class TestThe70BJobOnAnH100:
    def test_at_89389_tokens_fits_and_has_the_embedding_on_the_host(self):
        answer = plan_70b(LONG)
        assert (answer.verdict, answer.execution_path, answer.peak_phase) == ("fits", "eager", "backward")
        assert answer.regime["embedding_offloaded"]
        # unsloth-memory.md, section 13: 74.45e9 B with the leaf and the embedding offloaded.
        assert answer.peak_allocated_bytes.expected == pytest.approx(74.45e9, rel=0.002)

    def test_loses_its_embedding_at_about_83000_tokens(self):
        switch = first_true(60_000, LONG, "embedding_offloaded")
        assert 82_000 < switch < 84_000
        # By hand: usable - loaded - trained = 17/16 (48 * 8192 T + 4 * 128256 * 2048 + 16 * 414187520) + 256 MiB.
        assert switch == pytest.approx(83_000, abs=100)

    def test_needs_less_by_the_embedding_where_it_leaves(self):
        switch = first_true(60_000, LONG, "embedding_offloaded")
        before, after = plan_70b(switch - 1), plan_70b(switch)
        step = before.peak_allocated_bytes.expected - after.peak_allocated_bytes.expected
        embedding = 2 * 128_256 * 8192
        assert 0 <= embedding - step < 2 * MIB
        assert terms(before, "forward")["embedding"] == embedding
        assert "embedding" not in terms(after, "forward")
        # Unsloth looks once more when the adapters are there: until then it stays, as it did on the card.
        assert terms(after, "peft")["embedding"] == embedding
        assert after.host_bytes.expected - before.host_bytes.expected == pytest.approx(embedding, rel=0.001)

    def test_keeps_its_embedding_where_it_is_told_to(self):
        stays, leaves = plan_70b(LONG, offload_embedding=False), plan_70b(60_000, offload_embedding=True)
        assert not stays.regime["embedding_offloaded"]
        assert leaves.regime["embedding_offloaded"]

    def test_keeps_its_embedding_on_a_larger_card(self):
        assert not plan_70b(LONG, gpu="H200-141GB").regime["embedding_offloaded"]

    def test_goes_without_the_second_staging_buffer_near_the_limit(self):
        job = parse_job({"model": MODEL_70B, "r": 32})
        found = max_context(job, resolve_model(MODEL_70B, offline=True).architecture)
        assert plan_70b(LONG).regime["double_buffer"]
        near = plan_70b(found.expected)
        assert not near.regime["double_buffer"]
        assert "offload_staging_second" not in terms(near, "backward")

    def test_switches_the_second_staging_buffer_off_once_and_saves_one_hidden_state(self):
        low, high = LONG, 130_000
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if plan_70b(middle).regime["double_buffer"] else (low, middle)
        step = plan_70b(low).peak_allocated_bytes.expected - plan_70b(high).peak_allocated_bytes.expected
        # One token more, and with it perhaps a cuDNN bucket of 128, weighs against it.
        assert step == pytest.approx(2 * high * 8192, rel=0.005)

    def test_a_twin_of_three_layers_differs_from_the_whole_by_static_bytes_alone(self):
        whole, twin = plan_70b(LONG), plan_70b(LONG, num_hidden_layers=3, offload_embedding=True)
        grown = {
            "base_weights", "lora_parameters", "optimizer_state", "gradients", "last_layer_input",
        }  # fmt: skip
        first, second = terms(whole, "loss"), terms(twin, "loss")
        assert {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)} <= grown

    def test_tied_embeddings_never_leave(self):
        answer = plan("meta-llama/Llama-3.2-1B-Instruct", gpu="T4-16GB", max_seq_length=131_072)
        assert not answer.regime["embedding_offloaded"]


class TestLayerInputs:
    def test_of_two_mebibytes_stay_and_one_token_more_goes_to_the_host(self):
        stays, goes = (plan_8b(8192, sequence_length=n) for n in (256, 257))
        assert not stays.regime["inputs_offloaded"]
        assert goes.regime["inputs_offloaded"]
        assert terms(stays, "backward").get("layer_inputs", 0) in (256 * 8192, 32 * 256 * 8192)
        assert "offload_staging" not in terms(stays, "backward")
        assert terms(goes, "backward")["offload_staging"] == 257 * 8192

    def test_of_a_batch_count_together(self):
        assert not plan_8b(512, sequence_length=64, per_device_train_batch_size=4).regime["inputs_offloaded"]
        assert plan_8b(512, sequence_length=65, per_device_train_batch_size=4).regime["inputs_offloaded"]

    def test_stay_below_a_max_seq_length_of_512_however_large(self):
        short, enough = (plan_8b(n, per_device_train_batch_size=16) for n in (511, 512))
        assert short.regime["use_gradient_checkpointing"] is True
        assert not short.regime["inputs_offloaded"]
        assert enough.regime["use_gradient_checkpointing"] == "unsloth"
        assert enough.regime["inputs_offloaded"]
        same = plan_8b(511, per_device_train_batch_size=16, use_gradient_checkpointing=True)
        assert short.phases == same.phases

    def test_stay_outside_unsloth(self):
        answer = plan_8b(8192, framework="transformers")
        assert answer.regime["use_gradient_checkpointing"] is True
        assert not answer.regime["inputs_offloaded"]


class TestTheLoss:
    def test_is_tiled_from_4096_labelled_rows_on(self):
        # S tokens have S - 1 labelled rows.
        assert plan_8b(4096).regime["loss"] == "row_chunks"
        assert plan_8b(4097).regime["loss"] == "tiled"

    def test_is_tiled_at_any_length_on_a_small_card(self):
        limit = int(24.5 * GIB)
        small, large = ({"name": "RTX 4090", "total_bytes": size} for size in (limit, limit + 1))
        assert plan_8b(1024, gpu=small).regime["loss"] == "tiled"
        assert plan_8b(1024, gpu=large).regime["loss"] == "row_chunks"
        assert plan_8b(1024, gpu="L4-24GB").regime["loss"] == "tiled"

    def test_is_not_tiled_before_ampere(self):
        assert plan_8b(8192, gpu="T4-16GB").regime["loss"] == "row_chunks"

    def test_is_not_tiled_where_the_head_trains(self):
        assert plan_8b(8192, modules_to_save=["lm_head"]).regime["loss"] == "row_chunks"

    def test_is_not_tiled_for_a_vocabulary_of_two_tiles(self):
        # 32,768 entries are two tiles of 16,384.
        assert plan("mistralai/Mistral-7B-Instruct-v0.3", max_seq_length=16_384).regime["loss"] == "row_chunks"
        assert plan("Qwen/Qwen2.5-7B-Instruct", max_seq_length=16_384).regime["loss"] == "tiled"

    def test_holds_full_logits_on_the_transformers_path(self):
        answer = plan_8b(8192, framework="transformers")
        assert answer.regime["loss"] == "full_logits"
        assert terms(answer, "loss")["logits"] == 2 * 8192 * 128_256


class TestHostRam:
    """Seen on an H100 host with 125 GiB: the 70B job was killed when pinned, and took about 114 GiB when not."""

    def test_pinned_blocks_are_rounded_to_powers_of_two(self):
        answer = plan_70b(LONG)
        assert 2 * LONG * 8192 < 2 * GIB
        assert answer.host_bytes.pinned == 80 * 2 * GIB + 50 * MIB
        assert answer.regime["pinned_host_buffers"] == 80
        assert answer.verdict == "fits"

    def test_of_125_gib_does_not_hold_the_pinned_run(self):
        answer = plan_70b(LONG, host_ram_bytes=125 * GIB)
        assert (answer.verdict, answer.limited_by) == ("does_not_fit", "host")

    def test_of_125_gib_holds_the_unpinned_run_which_needs_about_114(self):
        answer = plan_70b(LONG, host_ram_bytes=125 * GIB, pin_host_memory=False)
        assert answer.host_bytes.pinned == 0
        assert answer.host_bytes.expected / GIB == pytest.approx(114, abs=2)
        assert answer.verdict == "fits"

    @pytest.mark.parametrize("pin", [None, False])
    def test_of_64_gib_holds_neither(self, pin):
        answer = plan_70b(LONG, host_ram_bytes=64 * GIB, pin_host_memory=pin)
        assert (answer.verdict, answer.limited_by) == ("does_not_fit", "host")

    def test_limits_the_longest_context(self):
        architecture = resolve_model(MODEL_70B, offline=True).architecture
        data = {"model": MODEL_70B, "r": 32, "pin_host_memory": False}
        free = max_context(parse_job(data), architecture)
        limited = max_context(parse_job({**data, "host_ram_bytes": 64 * GIB}), architecture)
        assert (free.limited_by, limited.limited_by) == ("gpu", "host")
        assert limited.expected < free.expected

    def test_within_five_percent_of_the_need_is_uncertain(self):
        need = plan_70b(LONG, pin_host_memory=False).host_bytes.expected
        answer = plan_70b(LONG, pin_host_memory=False, host_ram_bytes=int(need * 1.03))
        assert (answer.verdict, answer.limited_by) == ("uncertain", "host")

    def test_pins_as_many_blocks_as_leave_a_gibibyte(self):
        slot = 300 * MIB  # rounded to 512 MiB
        ram = 2_070_000_000 + 50 * MIB + GIB + 20 * 512 * MIB
        plan = host_plan(slots=32, slot_bytes=slot, embedding_bytes=0, pin=True, host_ram_bytes=ram)
        assert (plan.pinned_slots, plan.slots) == (20, 32)
        assert plan.pinned_bytes == 50 * MIB + 20 * 512 * MIB
        assert plan.pageable_bytes == 2_070_000_000 + 12 * slot

    def test_without_offloading_is_the_process_and_the_embedding(self):
        plan = host_plan(slots=0, slot_bytes=0, embedding_bytes=7, pin=True, host_ram_bytes=None)
        assert (plan.pinned_bytes, plan.total_bytes) == (0, 2_070_000_007)


class TestTheExecutionPath:
    @pytest.mark.parametrize(
        ("settings", "path"),
        [
            ({}, "eager"),
            ({"padding_free": False}, "block_compiled"),
            ({"padding_free": False, "block_compile": False}, "eager"),
            ({"packing": True}, "eager"),
            ({"block_compile": True}, "block_compiled"),
            ({"load_in_8bit": True}, "generated"),
            ({"full_finetuning": True}, "generated"),
            ({"framework": "transformers"}, "transformers"),
        ],
    )
    def test_follows_from_the_settings(self, settings, path):
        assert plan_8b(2048, **settings).execution_path == path

    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("Qwen/Qwen3-8B", "eager"),
            ("google/gemma-2-9b-it", "block_compiled"),
            ("google/gemma-3-1b-it", "generated"),
            ("microsoft/phi-4", "generated"),
            ("openai/gpt-oss-20b", "generated"),
        ],
    )
    def test_follows_from_the_family(self, model, path):
        assert plan(model, max_seq_length=2048).execution_path == path


def test_the_drivers_name_of_a_card_plans_as_the_catalogues():
    one, other = plan_70b(LONG, gpu="NVIDIA H100 80GB HBM3"), plan_70b(LONG)
    assert one.phases == other.phases
    assert one.usable_bytes == find_device("H100-80GB").usable_bytes
