"""What reaches the model is the micro-batch that was asked for, whichever way its documents are laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probes.child.batches import Batch, Batches, batch_of, check_batches
from probes.errors import WrongBatch
from probes.points import Point, parse_point
from tests.probes.tiny import TINY, tiny_job

torch = pytest.importorskip("torch")

from probes.child import data  # noqa: E402 - after the check that torch is there

LENGTHS = (5, 3, 8)


def point(*lengths: int, **job: Any) -> Point:
    """One that asks for these documents."""
    job = tiny_job(max_seq_length=sum(lengths), packing=True, **job)
    return parse_point({"job": job, "sample_lengths": list(lengths)})


def ids(*shape: int) -> Any:
    return torch.ones(shape, dtype=torch.long)


class TestADocumentIsTold:
    def test_by_the_lengths_that_unsloths_collator_gives(self) -> None:
        given = {"packed_seq_lengths": torch.tensor(LENGTHS, dtype=torch.int32)}
        assert batch_of(ids(1, 16), given) == Batch((1, 16), LENGTHS, flattened=True)

    def test_by_positions_that_start_again_in_a_row(self) -> None:
        positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7]])
        assert batch_of(ids(1, 16), {"position_ids": positions}) == Batch((1, 16), LENGTHS, flattened=True)

    def test_by_the_row_and_its_mask_in_a_dense_batch(self) -> None:
        assert batch_of(ids(3, 8), {}) == Batch((3, 8), (8, 8, 8), flattened=False)
        mask = torch.tensor([[1] * length + [0] * (8 - length) for length in LENGTHS])
        padded = batch_of(ids(3, 8), {"attention_mask": mask})
        assert padded == Batch((3, 8), LENGTHS, flattened=False)
        assert padded.padding_tokens == 8


class TestABatchIsHeldToThePoint:
    def test_the_documents_in_another_order_are_the_same_batch(self) -> None:
        check_batches(point(*LENGTHS), [Batch((1, 16), (8, 5, 3), flattened=True)], cuda=True)

    @pytest.mark.parametrize(
        "documents",
        [(16,), (5, 3), (5, 3, 7), (4, 4, 8), (5, 3, 8, 1)],
        ids=["joined", "dropped", "cut", "mixed", "more"],
    )
    def test_any_other_is_refused(self, documents: tuple[int, ...]) -> None:
        wrong = Batch((1, sum(documents)), documents, flattened=True)
        with pytest.raises(WrongBatch, match=f"{sum(documents)} tokens .* asked for were 16 tokens"):
            check_batches(point(*LENGTHS), [wrong], cuda=True)

    def test_one_wrong_micro_batch_among_right_ones_is_enough(self) -> None:
        batches = Batches()
        for lengths in (LENGTHS, (8, 8), LENGTHS):
            batches.note(ids(1, 16), {"packed_seq_lengths": torch.tensor(lengths)}, training=True)
        assert batches.last is not None
        assert batches.last.documents == LENGTHS
        with pytest.raises(WrongBatch, match="2 documents of 8, 8"):
            check_batches(point(*LENGTHS), batches.seen, cuda=True)

    def test_padding_is_refused_where_bytes_of_a_gpu_are_measured(self) -> None:
        padded = [Batch((3, 8), LENGTHS, flattened=False)]
        check_batches(point(*LENGTHS), padded, cuda=False)
        with pytest.raises(WrongBatch, match="8 tokens of padding"):
            check_batches(point(*LENGTHS), padded, cuda=True)

    def test_a_model_that_was_given_nothing_is_no_measurement(self) -> None:
        with pytest.raises(WrongBatch, match="no micro-batch"):
            check_batches(point(*LENGTHS), set(), cuda=True)

    def test_without_documents_each_row_is_one_of_the_jobs_length(self) -> None:
        asked = parse_point({"job": tiny_job(per_device_train_batch_size=3)})
        check_batches(asked, [Batch((3, 64), (64,) * 3, flattened=False)], cuda=True)
        check_batches(asked, [Batch((1, 192), (64,) * 3, flattened=True)], cuda=True)
        with pytest.raises(WrongBatch):
            check_batches(asked, [Batch((1, 192), (192,), flattened=True)], cuda=True)


class TestWhatIsOnRecord:
    def test_shape_and_documents_are_of_the_last_micro_batch(self) -> None:
        batches = Batches()
        batches.note(ids(1, 16), {"packed_seq_lengths": torch.tensor(LENGTHS)}, training=True)
        batches.note(ids(2, 4), {}, training=True)
        assert batches.facts() == {"input_shape": (2, 4), "packed_lengths": None}

    def test_of_a_generation_it_is_the_prompt(self) -> None:
        batches = Batches()
        for width in (32, 1, 1):
            batches.note(ids(2, width), {}, training=False)
        assert batches.facts()["input_shape"] == (2, 32)

    def test_nothing_before_the_first(self) -> None:
        assert Batches().facts() == {}


class TestAFlattenedRow:
    def test_positions_restart_and_no_document_predicts_the_next_ones_start(self) -> None:
        tokens = data.random_ids(LENGTHS, 512, seed=0)
        row = data.flattened_batch(LENGTHS, tokens, "cpu")
        assert row["input_ids"].tolist() == [[token for document in tokens for token in document]]
        assert row["position_ids"].tolist() == [[*range(5), *range(3), *range(8)]]
        assert row["packed_seq_lengths"].tolist() == list(LENGTHS)
        masked = (row["labels"] == -100).nonzero()[:, 1].tolist()
        assert masked == [0, 5, 8]
        kept = row["labels"] != -100
        assert torch.equal(row["labels"][kept], row["input_ids"][kept])
        assert batch_of(row["input_ids"], row).documents == LENGTHS

    def test_a_dense_batch_has_one_document_a_row(self) -> None:
        batch = data.dense_batch(data.random_ids((8, 8), 512, seed=0), "cpu")
        assert batch_of(batch["input_ids"], batch) == Batch((2, 8), (8, 8), flattened=False)


@pytest.mark.unsloth
@pytest.mark.filterwarnings("ignore")  # TRL's own, about attention on a CPU
@pytest.mark.parametrize(
    ("asked", "documents"),
    [
        ({"job": {"max_seq_length": 16, "packing": True}, "sample_lengths": [5, 3, 8]}, (5, 3, 8)),
        ({"job": {"max_seq_length": 16, "padding_free": True}, "sample_lengths": [6, 6, 4]}, (6, 6, 4)),
        (
            {
                "job": {"max_seq_length": 8, "packing": True, "per_device_train_batch_size": 2},
                "sample_lengths": [4] * 4,
            },
            (4,) * 4,
        ),
        ({"job": {"max_seq_length": 8, "packing": True, "per_device_train_batch_size": 3}}, (8,) * 3),
        ({"job": {"max_seq_length": 8, "padding_free": False, "per_device_train_batch_size": 2}}, (8,) * 2),
    ],
)
def test_trls_trainer_makes_each_micro_batch_of_the_documents_that_were_asked_for(
    asked: dict[str, Any], documents: tuple[int, ...], tmp_path: Path
) -> None:
    """The trainer itself, with the settings of a probe, up to its batches: about a second each."""
    trl = pytest.importorskip("trl")
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from probes.child.checkpoint import write_tokenizer
    from probes.child.load import Loaded
    from probes.child.train import dataset, sft_settings
    from probes.planned import run_of

    job = {**tiny_job(gradient_accumulation_steps=2), **asked["job"]}
    wanted = parse_point({**asked, "job": job})
    run = run_of(wanted)
    write_tokenizer(tmp_path)
    model = Qwen2ForCausalLM(Qwen2Config(**{**TINY, "num_hidden_layers": 1}))
    loaded = Loaded(model, AutoTokenizer.from_pretrained(tmp_path))
    settings = sft_settings(wanted, run, cuda=False) | {"use_cpu": True, "bf16": False}
    trainer = trl.SFTTrainer(
        model=model,
        processing_class=loaded.tokenizer,
        train_dataset=dataset(wanted, run, loaded),
        args=trl.SFTConfig(output_dir=str(tmp_path), **settings),
    )
    batches = [batch_of(batch["input_ids"], batch) for batch in trainer.get_train_dataloader()]
    assert len(batches) == wanted.steps * 2
    check_batches(wanted, batches, cuda=True)
    assert {batch.documents for batch in batches} == {documents}
