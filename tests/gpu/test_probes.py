"""Whole probes on a real card: ``python -m pytest tests/gpu`` on a CUDA host.

Every test starts a process that loads a model of true width and few layers, which takes about half a minute.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from ctxplan import Planner
from probes.ballast import hold
from probes.measurement import Measurement
from probes.nvml import Card, CardWatch, find_card
from probes.points import Point, parse_points
from probes.protocol import Progress
from probes.supervise import Options, measure
from tests.probes.common import wait_for

GIB = 2**30
LLAMA_1B = "unsloth/Llama-3.2-1B-Instruct-bnb-4bit"
LLAMA_8B = "unsloth/Llama-3.1-8B-Instruct-bnb-4bit"


@pytest.fixture(scope="module")
def card() -> Card:
    found = find_card()
    assert found is not None
    return found


def points(card: Card, job: dict[str, Any], **point: Any) -> tuple[Point, ...]:
    gpu = {"name": card.name, "total_bytes": card.total_bytes}
    return parse_points({"job": {"gpu": gpu, "num_hidden_layers": 3, **job}, **point})


def one(card: Card, job: dict[str, Any], options: Options | None = None, **point: Any) -> Measurement:
    (measured,) = measure(points(card, job, **point), options or Options(time_limit_seconds=300))
    return measured


def error(m: Measurement, **changes: Any) -> float:
    """Of the estimate, relative to the measured peak."""
    planned = Planner(offline=True).estimate({**m.job, **changes})
    assert m.peak_allocated_bytes is not None
    return planned.peak_allocated_bytes.expected / m.peak_allocated_bytes - 1


def used_bytes(card: Card) -> int:
    with CardWatch(card) as watch:
        sample = watch.sample()
        assert sample is not None
        return sample.used_bytes


def test_lengths_of_one_process_take_to_the_byte_what_each_takes_alone(card: Card) -> None:
    job = {"model": LLAMA_8B, "max_seq_length": 8192, "r": 32}
    together = measure(points(card, job, sequence_lengths=[2048, 8192]), Options(time_limit_seconds=300))
    alone = one(card, {**job, "sequence_length": 8192})
    for m in (*together, alone):
        assert (m.outcome, m.execution_path, m.ran.input_shape) == ("ok", "eager", (1, m.sequence_length)), m.detail
        assert abs(error(m)) < 0.01
        assert m.steps[1].peak_allocated_bytes == m.steps[2].peak_allocated_bytes
        assert (m.ran.inputs_offloaded, m.ran.double_buffer, m.ran.attention_kernel) == (3, True, "cudnn")
    assert together[1].lengths_before == (2048,)
    for part in ("forward", "backward", "optimizer"):
        both, single = getattr(together[1].steps[-1], part), getattr(alone.steps[-1], part)
        assert both.allocated_bytes == single.allocated_bytes, part
    pinned = [m.host.pinned_reserved_bytes for m in (together[1], alone) if m.host and m.host.pinned_reserved_bytes]
    assert pinned[0] == pytest.approx(pinned[1], abs=2**20)


def test_a_dense_batch_runs_block_compiled_and_is_seen_to(card: Card) -> None:
    m = one(card, {"model": LLAMA_1B, "max_seq_length": 2048, "padding_free": False}, trainer="loop")
    assert (m.outcome, m.execution_path, m.ran.layers_compiled) == ("ok", "block_compiled", 3), m.detail
    off = one(card, {"model": LLAMA_1B, "max_seq_length": 2048, "padding_free": False, "block_compile": False})
    assert (off.outcome, off.execution_path, off.ran.layers_compiled) == ("ok", "eager", 0), off.detail


def test_documents_of_one_row_are_packed_as_asked(card: Card) -> None:
    lengths = [1024, 512, 512]
    m = one(card, {"model": LLAMA_1B, "max_seq_length": 2048, "packing": True}, sample_lengths=lengths)
    assert (m.outcome, m.ran.input_shape) == ("ok", (1, 2048)), m.detail
    assert sorted(m.ran.packed_lengths or ()) == sorted(lengths)


def test_plain_transformers_never_sees_unsloth(card: Card) -> None:
    job = {"model": LLAMA_1B, "max_seq_length": 2048, "framework": "transformers", "use_gradient_checkpointing": True}
    m = one(card, job)
    assert (m.outcome, m.execution_path, m.ran.loss) == ("ok", "transformers", "full_logits"), m.detail
    assert abs(error(m)) < 0.01


def test_a_generation_has_a_peak(card: Card) -> None:
    job = {"model": LLAMA_1B, "max_seq_length": 4096, "sequence_length": 2048, "mode": "generate", "max_new_tokens": 8}
    m = one(card, job)
    assert (m.outcome, m.steps) == ("ok", ()), m.detail
    assert m.generation is not None
    assert (m.generation.allocated_bytes or 0) > (m.after_load_allocated_bytes or 0)


def test_the_tensors_alive_at_the_peak_are_named_and_sum_to_it(card: Card) -> None:
    options = Options(time_limit_seconds=300, snapshot=True)
    m = one(card, {"model": LLAMA_8B, "max_seq_length": 4096, "r": 32}, options)
    assert m.outcome == "ok", m.detail
    assert m.live_tensors
    named = sum(tensor.bytes for tensor in m.live_tensors)
    assert 0.98 * (m.peak_allocated_bytes or 0) < named <= (m.peak_allocated_bytes or 0)
    assert any("fast_lora.py" in line for tensor in m.live_tensors for line in tensor.stack)


def test_a_large_card_stands_in_for_a_small_one_until_its_memory_ends(card: Card) -> None:
    small = {"gpu": {"name": "a card of 8 GiB", "total_bytes": 8 * GIB}}
    job = {"model": LLAMA_1B, "num_hidden_layers": 16, **small}
    fits = one(card, {**job, "max_seq_length": 32768}, cap_bytes=8 * GIB)
    assert fits.outcome == "ok", fits.detail
    assert fits.cap is not None
    assert (fits.device_used_bytes or 0) < 8 * GIB
    too_long = one(card, {**job, "max_seq_length": 131072}, cap_bytes=8 * GIB)
    assert too_long.outcome == "out_of_memory", too_long.detail
    ended = too_long.out_of_memory
    assert ended is not None
    assert ended.phase in ("forward", "backward")
    assert (ended.allocated_bytes or 0) + (ended.tried_bytes or 0) > 7 * GIB
    assert (too_long.num_hidden_layers, too_long.gpu) == (16, card.name)


def test_somebody_else_on_the_card_makes_the_point_void(card: Card) -> None:
    with hold(card.total_bytes - 4 * GIB, card):
        m = one(card, {"model": LLAMA_1B, "max_seq_length": 512})
    assert m.outcome == "neighbour"
    assert "PID" in (m.detail or "")


def test_a_job_for_another_card_is_not_run(card: Card) -> None:
    m = one(card, {"model": LLAMA_1B, "max_seq_length": 512, "gpu": "T4-16GB"})
    assert m.outcome == "wrong_gpu"


@pytest.mark.parametrize("killed", ["child", "parent"])
def test_kill_9_leaves_nothing_on_the_card(card: Card, killed: str) -> None:
    before = used_bytes(card)
    job = {"model": LLAMA_1B, "max_seq_length": 32768, "num_hidden_layers": 16}
    point = points(card, job, steps=500)
    if killed == "child":
        _kill_the_child(point)
    else:
        _kill_the_parent(point)
    wait_for(lambda: used_bytes(card) - before < GIB // 4, "the card is free again")


def _kill_the_child(point: tuple[Point, ...]) -> None:
    def kill(progress: Progress) -> None:
        if progress.phase == "backward":
            threading.Thread(target=os.kill, args=(_process_on_the_card(), signal.SIGKILL)).start()

    (m,) = measure(point, Options(time_limit_seconds=300), on_progress=kill)
    assert m.outcome == "crashed"


def _kill_the_parent(point: tuple[Point, ...]) -> None:
    body = "import json, sys; from probes.points import parse_points; from probes.supervise import measure\n"
    body += "measure(parse_points(json.load(sys.stdin)), on_progress=lambda p: print(p.phase, flush=True))"
    parent = subprocess.Popen([sys.executable, "-c", body], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(json.dumps(point[0].to_json()))
    parent.stdin.close()
    assert any("backward" in line for line in parent.stdout)
    parent.kill()
    parent.wait()
    parent.stdout.close()


def _process_on_the_card() -> int:
    card = find_card()
    with CardWatch(card) as watch:
        sample = watch.sample()
        assert sample is not None
        (pid,) = sample.processes
        return pid
