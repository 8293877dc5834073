"""What to change in jobs whose answer is known: each is a case that users have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ctxplan.environment import environment
from estimator import JobError, UnknownDevice, estimate, find_device, max_context
from estimator.advise import Advice, advise
from estimator.advise.code import VARIABLES
from estimator.advise.plan import dominates, undominated
from estimator.advise.prices import FREE, SCALE, Price
from estimator.job import parse_job
from tests.estimator.random_jobs import architecture_of

LLAMA_70B = {
    "model": "unsloth/Llama-3.3-70B-Instruct-bnb-4bit",
    "gpu": "H100-80GB",
    "max_seq_length": 89_389,
    "r": 32,
}
DENSE = {**LLAMA_70B, "padding_free": False}
LLAMA_8B = {"model": "unsloth/Llama-3.1-8B-Instruct-bnb-4bit", "gpu": "H100-80GB", "max_seq_length": 4096}
FULL_8B: dict[str, Any] = {
    "model": "unsloth/Llama-3.1-8B-Instruct",
    "gpu": "RTX-4090-24GB",
    "max_seq_length": 4096,
    "full_finetuning": True,
}
GPT_OSS: dict[str, Any] = {"model": "openai/gpt-oss-20b", "gpu": "RTX-4090-24GB", "max_seq_length": 32_768, "r": 32}
NOWHERE: dict[str, Any] = {"model": "unsloth/Llama-3.3-70B-Instruct", "gpu": "T4-16GB", "max_seq_length": 2**27}
ROOMY: dict[str, Any] = {**LLAMA_8B, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}


def advice(data: dict[str, Any], **options: Any) -> Advice:
    return advise(parse_job(data), architecture_of(data["model"]), **options)


def changes(data: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    return [dict(proposal.changes) for proposal in advice(data, **options).proposals]


class TestTheDense70B:
    def test_it_does_not_fit_and_turning_block_compile_off_comes_first(self):
        answer = advice(DENSE)
        assert answer.standing.verdict == "does_not_fit"
        assert (answer.trainer, answer.best_verdict) == ("loop", "fits")
        first = answer.proposals[0]
        assert first.changes == {"block_compile": False}
        assert first.standing.verdict == "fits"
        assert first.code == ('os.environ["UNSLOTH_BLOCK_COMPILE"] = "0"  # before unsloth is imported',)

    def test_for_sfttrainer_padding_free_batches_come_first(self):
        first = advice(DENSE, trainer="sft").proposals[0]
        assert first.changes == {"padding_free": True}
        assert first.code == ("SFTConfig(..., padding_free=True)",)

    def test_a_loop_hears_of_padding_free_batches_later_and_what_it_must_do_for_them(self):
        proposals = advice(DENSE).proposals
        padding_free = next(p for p in proposals if p.changes == {"padding_free": True})
        assert padding_free.price.effort > proposals[0].price.effort
        assert "packed_seq_lengths" in " ".join(padding_free.code)

    def test_tiles_never_come_with_a_compiled_layer(self):
        tiled = [p for p in advice(DENSE, limit=50).proposals if p.changes.get("unsloth_tiled_mlp")]
        assert tiled
        assert all(p.changes.get("block_compile") is False or p.job.padding_free for p in tiled)

    def test_a_dearer_change_of_the_layer_reaches_further(self):
        plain, tiled = advice(DENSE).proposals[:2]
        assert tiled.changes == {"block_compile": False, "unsloth_tiled_mlp": True}
        assert tiled.standing.longest > plain.standing.longest > 89_389

    def test_another_card_is_the_last_resort(self):
        last = advice(DENSE).proposals[-1]
        assert list(last.changes) == ["gpu"]
        assert last.price.hardware == 1


class TestFullFineTuningOfAn8BOn24GB:
    def test_nothing_that_leaves_the_result_as_it_is_makes_it_fit_this_card(self):
        answer = advice(FULL_8B)
        assert answer.standing.verdict == "does_not_fit"
        assert all(p.price.quality or p.price.hardware for p in answer.proposals)

    def test_lora_on_16_bit_weights_comes_before_4_bit_ones_and_both_before_another_card(self):
        found = changes(FULL_8B)
        sixteen = {"full_finetuning": False, "load_in_4bit": False, "load_in_16bit": True}
        assert found[0] == sixteen
        four = next(i for i, c in enumerate(found) if c.get("load_in_4bit"))
        card = next(i for i, c in enumerate(found) if "gpu" in c)
        assert 0 < four < card

    def test_the_other_card_is_the_smallest_that_takes_it_as_it_is(self):
        card = next(p for p in advice(FULL_8B).proposals if "gpu" in p.changes)
        usable = find_device(card.changes["gpu"]).usable_bytes
        assert card.standing.verdict == "fits"
        for name in ("RTX-5090-32GB", "A100-40GB", "L40S-48GB"):
            smaller = estimate(parse_job({**FULL_8B, "gpu": name}), architecture_of(FULL_8B["model"]))
            assert smaller.verdict != "fits" or find_device(name).usable_bytes >= usable

    def test_the_code_says_that_adapters_are_needed(self):
        code = advice(FULL_8B).proposals[0].code
        assert code == (
            "FastLanguageModel.from_pretrained(..., load_in_4bit=False, load_in_16bit=True, full_finetuning=False)",
            "model = FastLanguageModel.get_peft_model(model, ...)",
        )


class TestGptOss:
    def test_nothing_that_the_generated_path_ignores_is_proposed(self):
        for proposal in advice(GPT_OSS, limit=50).proposals:
            ignored = {"unsloth_tiled_mlp", "block_compile", "padding_free", "packing"}
            assert not ignored & set(proposal.changes)

    def test_a_card_with_more_memory_takes_it(self):
        answer = advice(GPT_OSS)
        assert answer.standing.verdict == "does_not_fit"
        assert any("gpu" in proposal.changes for proposal in answer.proposals)


class TestAJobThatFitsNowhere:
    def test_nothing_is_proposed_and_the_verdict_stays(self):
        answer = advice(NOWHERE)
        assert answer.proposals == ()
        assert answer.best_verdict == answer.standing.verdict == "does_not_fit"

    def test_where_no_card_takes_it_as_it_is_one_takes_it_changed(self):
        # 560 GiB of layer inputs stay on the GPU: no card of the catalogue holds them.
        job = {**LLAMA_70B, "gpu": "A100-40GB", "use_gradient_checkpointing": False}
        answer = advice(job)
        assert answer.best_verdict == "fits"
        first = answer.proposals[0]
        assert {"gpu", "use_gradient_checkpointing"} <= set(first.changes)
        assert first.standing.verdict == "fits"

    def test_a_host_that_is_too_small_gets_the_inputs_on_a_larger_card(self):
        # 64 GiB hold 29 of 80 layer inputs: nothing on the H100 helps, and another card takes them with tiles.
        job = {**LLAMA_70B, "host_ram_bytes": 64 * 2**30}
        answer = advice(job)
        assert (answer.standing.verdict, answer.standing.limited_by) == ("does_not_fit", "host")
        first = answer.proposals[0]
        assert first.changes == {"gpu": "B200-180GB", "use_gradient_checkpointing": True, "unsloth_tiled_mlp": True}
        assert first.standing.verdict == "fits"
        assert first.host_ram_bytes < 0


class TestAJobWithRoom:
    def test_a_longer_context_is_free_up_to_the_models_own_and_costs_quality_beyond_it(self):
        answer = advice(ROOMY)
        assert answer.standing.verdict == "fits"
        free, longer = [p for p in answer.proposals if p.goal == "context"][:2]
        assert (answer.proposals[0], free.price) == (free, FREE)
        assert free.changes == {"max_seq_length": 131072}
        longest = max_context(parse_job(ROOMY), architecture_of(ROOMY["model"])).safe
        assert longest > 131072
        assert (longer.changes, longer.price) == ({"max_seq_length": longest}, Price(quality=1))
        assert "the model's own context is 131,072" in longer.options[0].words
        assert free.standing.verdict == longer.standing.verdict == "fits"

    def test_within_the_models_own_context_the_longest_is_free(self):
        job = {**ROOMY, "gpu": "L40S-48GB"}
        longest = max_context(parse_job(job), architecture_of(job["model"])).safe
        assert job["max_seq_length"] < longest < 131072
        first = advice(job).proposals[0]
        assert (first.changes, first.price) == ({"max_seq_length": longest}, FREE)

    def test_changes_make_the_context_longer_still(self):
        contexts = [p for p in advice(ROOMY).proposals if p.goal == "context"]
        assert len(contexts) > 1
        lengths = [p.standing.longest for p in contexts if not p.price.quality]
        assert lengths == sorted(lengths)

    def test_accumulated_micro_batches_become_one(self):
        batches = [p for p in advice(ROOMY).proposals if p.goal == "batch"]
        assert batches[0].changes == {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
        assert batches[0].price == FREE

    def test_the_largest_batch_fits_and_one_more_does_not(self):
        largest = [p for p in advice(ROOMY).proposals if p.goal == "batch"][-1]
        batch = largest.changes["per_device_train_batch_size"]
        architecture = architecture_of(ROOMY["model"])

        def verdict(sequences: int) -> str:
            job = {**ROOMY, "per_device_train_batch_size": sequences}
            return estimate(parse_job(job), architecture).verdict

        assert verdict(batch) == "fits"
        assert verdict(batch + 1) != "fits"

    def test_no_card_is_proposed_to_a_job_that_fits(self):
        assert all("gpu" not in proposal.changes for proposal in advice(ROOMY, limit=50).proposals)

    def test_a_sequence_length_gives_way_to_the_longer_context(self):
        free = advice({**ROOMY, "sequence_length": 1000}).proposals[0]
        assert free.changes["sequence_length"] is None
        assert free.job.sequence_length == free.job.max_seq_length

    def test_prompts_are_answered_in_larger_batches(self):
        batches = [p for p in advice({**LLAMA_8B, "mode": "generate", "max_new_tokens": 64}).proposals]
        assert {"per_device_train_batch_size"} in [set(p.changes) for p in batches if p.goal == "batch"]


class TestOtherLimits:
    def test_a_host_that_is_too_small_is_relieved_of_pinned_buffers(self):
        first = advice({**LLAMA_70B, "host_ram_bytes": 130 * 2**30}).proposals[0]
        assert first.changes == {"pin_host_memory": False}
        assert first.host_ram_bytes < 0
        assert first.code == ('os.environ["UNSLOTH_DISABLE_PINNED_MEMORY"] = "1"  # before unsloth is imported',)

    def test_plain_transformers_is_told_of_unsloth(self):
        job = {**LLAMA_8B, "gpu": "RTX-4090-24GB", "max_seq_length": 32_768, "framework": "transformers"}
        found = advice(job)
        assert found.trainer == "loop"
        assert {"framework": "unsloth"} in [dict(p.changes) for p in found.proposals]

    def test_an_evaluation_that_is_the_peak_gets_a_smaller_batch(self):
        job = {**LLAMA_8B, "gpu": "RTX-4090-24GB", "max_seq_length": 32_768, "per_device_eval_batch_size": 16}
        first = advice(job).proposals[0]
        assert first.changes == {"per_device_eval_batch_size": 1}

    def test_embeddings_that_were_targets_can_be_left_out_of_them(self):
        job = {**LLAMA_8B, "gpu": "T4-16GB", "target_modules": ["q_proj", "v_proj", "embed_tokens", "lm_head"]}
        first = advice(job).proposals[0]
        assert first.changes == {"target_modules": ("q_proj", "v_proj")}
        assert first.job.modules_to_save == ()
        assert first.standing.verdict == "fits"

    def test_embeddings_of_their_own_are_frozen_and_the_targets_stay(self):
        job = {**LLAMA_8B, "gpu": "T4-16GB", "modules_to_save": ["embed_tokens", "lm_head"]}
        first = advice(job).proposals[0]
        assert first.changes == {"modules_to_save": ()}
        assert len(first.job.target_modules) == 7

    def test_a_rank_is_halved_and_no_lower_than_eight(self):
        job = {**LLAMA_8B, "gpu": "T4-16GB", "max_seq_length": 8192, "r": 512}
        ranks = [p.changes["r"] for p in advice(job, limit=50).proposals if "r" in p.changes]
        assert ranks
        assert set(ranks) <= {256, 128, 64}
        low = {**job, "r": 9}
        assert all("r" not in p.changes for p in advice(low, limit=50).proposals)


class TestPrices:
    def test_the_scales_rank_in_their_order(self):
        most = SCALE - 1
        ranked = [
            Price(speed=most),
            Price(effort=1),
            Price(effort=most, speed=most),
            Price(quality=1),
            Price(quality=most, effort=most, speed=most),
            Price(hardware=1),
        ]
        orders = [price.order for price in ranked]
        assert orders == sorted(set(orders))

    def test_a_combination_costs_the_sum_of_its_parts(self):
        one, other = Price(quality=2, speed=3), Price(effort=1, speed=4)
        assert one.plus(other) == Price(quality=2, effort=1, speed=7)
        assert one.plus(other).order == one.order + other.order

    def test_a_price_covers_what_is_as_dear_on_every_scale(self):
        assert Price(quality=1).covers(Price(quality=1, speed=1))
        assert not Price(speed=1).covers(Price(quality=5))

    def test_the_variables_of_the_code_are_those_that_a_run_sets(self):
        for (key, value), line in VARIABLES.items():
            job = parse_job({**DENSE, key: value})
            name = line.split('"')[1]
            assert environment(job)[name] == line.split('"')[3]


def test_what_is_dominated_is_left_out_and_of_equals_one_stays():
    best, *_ = advice(DENSE).proposals
    worse = replace(best, price=best.price.plus(Price(quality=1)))
    assert dominates(best, worse)
    assert not dominates(worse, best)
    assert undominated([worse, best, best]) == [best]


def test_a_limit_keeps_the_best():
    everything = advice(DENSE, limit=50).proposals
    assert advice(DENSE, limit=2).proposals == everything[:2]


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ({**LLAMA_8B, "load_in_4bit": True, "full_finetuning": True}, JobError),
        ({**LLAMA_8B, "gpu": "H1000"}, UnknownDevice),
    ],
)
def test_a_job_that_cannot_be_planned_is_refused_as_by_an_estimate(job, error):
    with pytest.raises(error):
        advice(job)


class TestCode:
    def test_a_larger_batch_is_a_config_of_the_trainer_and_a_word_to_a_loop(self):
        larger = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
        sft = next(p for p in advice(ROOMY).proposals if p.changes == larger)
        loop = next(p for p in advice(ROOMY, trainer="loop").proposals if p.changes == larger)
        assert sft.code == ("SFTConfig(..., per_device_train_batch_size=8, gradient_accumulation_steps=1)",)
        assert loop.code == (
            "# in the loop: per_device_train_batch_size = 8",
            "# in the loop: gradient_accumulation_steps = 1",
        )

    def test_targets_are_a_list_of_the_adapters(self):
        few = next(p for p in advice(DENSE).proposals if "target_modules" in p.changes)
        assert few.code == (
            'FastLanguageModel.get_peft_model(..., target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])',
        )

    def test_plain_transformers_has_its_own_calls(self):
        job = {**FULL_8B, "framework": "transformers"}
        first = next(p for p in advice(job).proposals if p.changes.get("load_in_4bit") and "framework" not in p.changes)
        assert first.code[:2] == (
            "BitsAndBytesConfig(..., load_in_4bit=True)",
            "model = get_peft_model(model, LoraConfig(...))",
        )
