"""Generates with a KV cache, and gives the peak of it."""

from __future__ import annotations

from typing import Any

from estimator.resolve import Run
from probes.child.data import random_ids
from probes.child.load import Loaded
from probes.child.meter import Meter, Peak


def generate(run: Run, loaded: Loaded, meter: Meter, *, times: int) -> list[tuple[Peak, float]]:
    """Generate ``max_new_tokens`` (1 or more: `probes.points` refuses 0) after a prompt of ``sequence_length`` tokens,
    so many times.

    Returns:
        The peak and the seconds of each.
    """
    import torch

    model, job = loaded.model, run.job
    if job.framework == "unsloth":
        _for_inference(model)
    length = job.sequence_length or job.max_seq_length
    ids = random_ids((length,) * job.per_device_train_batch_size, model.config.get_text_config().vocab_size, seed=0)
    prompt = torch.tensor(ids, device="cuda" if meter.cuda else "cpu")
    results = []
    for _ in range(times):
        meter.reset()
        began = meter.synchronise()
        with torch.inference_mode():
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=job.max_new_tokens,
                min_new_tokens=job.max_new_tokens,
                do_sample=False,
            )
        results.append((meter.peak(), meter.synchronise() - began))
    return results


def _for_inference(model: Any) -> None:
    from unsloth import FastLanguageModel

    FastLanguageModel.for_inference(model)
