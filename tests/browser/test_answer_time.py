"""How long the planner's page takes to answer a change: with plans in a process of their own, as the service is run."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

import pytest

from tests.browser.driver import Browser
from tests.browser.looking import LOADED

pytestmark = pytest.mark.slow  # a busy machine tells nothing of it

ANSWER_MS = 100
ROUNDS = 5
IDLE_SHARE = 0.25
"""Of the machine, at rest: where others leave less, a miss says nothing."""
TIMED_CHANGE = """
const [key, text, kind] = arguments;
const field = document.getElementById(key);
const answered = new Promise((settled) => document.body.addEventListener('htmx:afterSettle', function heard(event) {
  if (event.detail.target.id !== 'answer') return;
  document.body.removeEventListener('htmx:afterSettle', heard);
  requestAnimationFrame(() => setTimeout(() => settled(performance.now()), 0));
}));
const start = performance.now();
field.value = text;
field.dispatchEvent(new Event(kind, {bubbles: true}));
return answered.then((end) => end - start);
"""
"""Changes a field, and gives the milliseconds until its answer has been painted."""

CHANGES = {
    "max_seq_length": ("20000", "64000", "89389"),
    "model": ("Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B", "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"),
    "gpu": ("A100-40GB", "B200-180GB", "H100-80GB"),
    "r": ("8", "64", "32"),
    "per_device_train_batch_size": ("2", "4", "1"),
    "use_gradient_checkpointing": ("true", "false", "unsloth"),
    "optim": ("adamw_torch", "sgd", "adamw_8bit"),
    "packing": ("true", "false"),
    "unsloth_tiled_mlp": ("true", "false"),
    "framework": ("transformers", "unsloth"),
    "mode": ("generate", "train"),
    "host_ram_gib": ("64", ""),
}


AT_REST = f"{LOADED} && !document.querySelector('#more[aria-busy]')"
REST = "return new Promise((done) => setTimeout(done, 500))"


def idle_share(window: Browser) -> float:
    """How much of the machine does nothing while neither the page nor its service does anything."""
    window.wait(AT_REST)
    before = _ticks()
    window.run(REST)
    passed = [after - earlier for earlier, after in zip(before, _ticks(), strict=True)]
    return (passed[3] + passed[4]) / max(1, sum(passed))


def _ticks() -> list[int]:
    return [int(count) for count in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]]


@pytest.mark.parametrize("key", CHANGES)
def test_a_change_is_answered_within_a_tenth_of_a_second(window: Browser, service: str, key: str) -> None:
    """The median, after each change has been made once. A miss says nothing where the machine has more to do than it
    has cores, over the last minute, or where others take most of it now."""
    window.open(service)
    idle = [idle_share(window)]
    is_typed = window.run("return document.getElementById(arguments[0]).matches('input[data-live]')", key)
    times = []
    for turn in range(1 + ROUNDS):
        for text in CHANGES[key]:
            took = window.run(TIMED_CHANGE, key, text, "input" if is_typed else "change")
            times += [took] if turn else []
    idle.append(idle_share(window))
    is_busy = os.getloadavg()[0] > (os.cpu_count() or 1) or min(idle) < IDLE_SHARE
    if median(times) >= ANSWER_MS and is_busy:
        pytest.skip(f"the machine is too busy to say: {median(times):.0f} ms in the median")
    assert median(times) < ANSWER_MS, times
