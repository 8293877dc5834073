"""Runs the training steps of one point and records each: by TRL's SFTTrainer, or by a bare loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

from estimator import Job
from estimator.resolve import Run
from probes.child import data
from probes.child.load import Loaded
from probes.child.meter import Recorder
from probes.points import Point

LEARNING_RATE = 1e-4
Watch = Callable[[int], AbstractContextManager[Any]]
"""Given the number of a step, what to run it under."""


def train(point: Point, run: Run, loaded: Loaded, recorder: Recorder, watch: Watch, folder: Path) -> None:
    """Run the steps. What the stack raises passes through; the recorder knows where it was."""
    if point.trainer == "sft":
        _train_with_sft(point, run, loaded, recorder, watch, folder)
    else:
        _train_in_a_loop(point, run, loaded, recorder, watch, folder)


def _train_in_a_loop(point: Point, run: Run, loaded: Loaded, recorder: Recorder, watch: Watch, folder: Path) -> None:
    import torch

    model, job = loaded.model, run.job
    device = "cuda" if recorder.meter.cuda else "cpu"
    lengths = data.document_lengths(point)
    ids = data.random_ids(lengths, model.config.get_text_config().vocab_size, seed=0)
    batch = data.flattened_batch(lengths, ids, device) if run.flattened else data.dense_batch(ids, device)
    optimizer = make_optimizer(model, job, folder)
    recorder.steps_with(optimizer)
    cast = torch.autocast(device, dtype=torch.bfloat16) if job.framework == "transformers" else nullcontext()
    model.train()
    for number in range(1, point.steps + 1):
        with watch(number):
            recorder.step_begins()
            for _ in range(job.gradient_accumulation_steps):
                recorder.micro_batch_begins()
                with cast:
                    loss = model(**batch).loss / job.gradient_accumulation_steps
                recorder.forward_ends()
                loss.backward()
                # What the loss still holds of its graph goes before the optimizer's part begins.
                loss = loss.detach()
                recorder.backward_ends(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            recorder.step_ends()


def make_optimizer(model: Any, job: Job, folder: Path) -> Any:
    """The optimizer that a Trainer makes for the job's ``optim``."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder), optim=job.optim, learning_rate=LEARNING_RATE, report_to="none"
    )
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    return kind([parameter for parameter in model.parameters() if parameter.requires_grad], **options)


def _train_with_sft(point: Point, run: Run, loaded: Loaded, recorder: Recorder, watch: Watch, folder: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=loaded.model,
        processing_class=loaded.tokenizer,
        train_dataset=dataset(point, run, loaded),
        args=SFTConfig(output_dir=str(folder), **sft_settings(point, run, cuda=recorder.meter.cuda)),
    )
    with ExitStack() as watched:  # a step that fails is watched until then
        _attach(trainer, recorder, watch, watched)
        trainer.train()


def sft_settings(point: Point, run: Run, *, cuda: bool) -> dict[str, Any]:
    """Settings of ``SFTConfig``: the job's, and none that change memory beside."""
    job = run.job
    settings: dict[str, Any] = {
        "max_length": max(data.document_lengths(point)),
        "max_steps": point.steps,
        "per_device_train_batch_size": len(data.document_lengths(point)),
        "gradient_accumulation_steps": job.gradient_accumulation_steps,
        "optim": job.optim,
        "learning_rate": LEARNING_RATE,
        # Unsloth's default warms up for a tenth of the steps: the first one would change nothing.
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "packing": job.packing,
        "dataset_num_proc": 1,
        "train_sampling_strategy": "sequential",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "seed": 3407,
    }
    if point.sample_lengths:
        # TRL packs documents best fit first, and mixes those of several micro-batches: these rows are packed already.
        settings |= {"packing": True, "dataset_kwargs": {"skip_prepare_dataset": True}}
    elif point.job.padding_free is not None or not run.flattened:
        settings["padding_free"] = bool(job.padding_free)
    if job.framework == "transformers":
        settings |= {"bf16": True, "gradient_checkpointing": job.use_gradient_checkpointing is not False}
        settings["use_cpu"] = not cuda
    return settings


def dataset(point: Point, run: Run, loaded: Loaded) -> Any:
    """Rows in the order in which they are trained on: texts, which the trainer tokenises, for flattened batches; ids
    for dense ones; and ids with labels, one document a row, where the documents of a micro-batch are given."""
    from datasets import Dataset

    model, tokenizer = loaded
    lengths = data.document_lengths(point)
    rows = point.steps * run.job.gradient_accumulation_steps
    if run.flattened and not point.sample_lengths:
        texts = data.random_texts(lengths, tokenizer, seed=0)
        return Dataset.from_dict({"text": texts * rows})
    ids = data.random_ids(lengths, model.config.get_text_config().vocab_size, seed=0)
    # The trainer's collator lays the rows of a micro-batch end to end: per_device_train_batch_size documents.
    return Dataset.from_dict({"input_ids": ids * rows, **({"labels": ids * rows} if point.sample_lengths else {})})


def _attach(trainer: Any, recorder: Recorder, watch: Watch, watched: ExitStack) -> None:
    """Let the recorder follow a trainer: its forward ends where accelerate's backward begins.

    Args:
        watched: holds what the step that runs is watched with.
    """
    from transformers import TrainerCallback

    training_step, backward = trainer.training_step, trainer.accelerator.backward

    def step(*arguments: Any, **options: Any) -> Any:
        recorder.micro_batch_begins()
        loss = training_step(*arguments, **options)
        # Not where accelerate's backward returns: the step still holds its batch and outputs there.
        recorder.backward_ends(loss.detach())
        return loss

    def backwards(*arguments: Any, **options: Any) -> Any:
        recorder.forward_ends()
        return backward(*arguments, **options)

    class Follow(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            watched.enter_context(watch(recorder.number))
            recorder.step_begins()

        def on_step_end(self, *_: Any, optimizer: Any, **__: Any) -> None:
            recorder.steps_with(optimizer)
            recorder.step_ends()
            watched.close()

    trainer.training_step, trainer.accelerator.backward = step, backwards
    trainer.add_callback(Follow())
