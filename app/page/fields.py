"""The fields of the planner's form: what they are called, what may be chosen, and what a job has in them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from app.catalogue import gpus
from app.page.query import FIRST_JOB, text_of, weights_of
from app.page.words import GIB, gib, gpu_name
from estimator import Job, job_to_json, parse_job
from estimator.job import ATTENTION, OPTIMIZERS

Choices = tuple[tuple[str, str], ...]

WEIGHT_CHOICES: Choices = (
    ("", "4-bit QLoRA"),
    ("load_in_8bit", "8-bit LoRA"),
    ("load_in_16bit", "16-bit LoRA"),
    ("load_in_fp8", "FP8 LoRA"),
    ("full_finetuning", "Full fine-tuning"),
)
CHECKPOINTING_CHOICES: Choices = (
    ("unsloth", "Unsloth (offloads to host RAM)"),
    ("true", "On (recompute, no offload)"),
    ("false", "Off"),
)
AUTOMATIC: Choices = (("", "Automatic"), ("true", "On"), ("false", "Off"))
CHOICES: dict[str, Choices] = {
    "use_gradient_checkpointing": CHECKPOINTING_CHOICES,
    "optim": tuple((name, name) for name in OPTIMIZERS),
    "packing": (("false", "Off"), ("true", "On")),
    "unsloth_tiled_mlp": (("false", "Off"), ("true", "On")),
    "padding_free": AUTOMATIC,
    "offload_embedding": (("auto", "Automatic"), ("true", "On"), ("false", "Off")),
    "pin_host_memory": AUTOMATIC,
    "block_compile": AUTOMATIC,
    "attn_implementation": (("", "Automatic"), *((name, name) for name in ATTENTION)),
    "framework": (("unsloth", "Unsloth"), ("transformers", "transformers and PEFT")),
    "mode": (("train", "Training"), ("generate", "Generation")),
}


class Form(NamedTuple):
    """What the form shows: texts of its fields by key, and choices by key. ``fault``: the key that was refused."""

    texts: dict[str, str]
    choices: dict[str, Choices]
    hidden: dict[str, str]
    fault: str | None


def form_of_job(job: Job) -> Form:
    """The form filled in with a job; what has no field of its own, the versions, travels in a hidden one."""
    texts = {key: _text(value) for key, value in job_to_json(job).items()}
    asked = weights_of(job)
    texts["weights"] = "" if asked == "load_in_4bit" else asked
    texts["host_ram_gib"] = "" if job.host_ram_bytes is None else f"{job.host_ram_bytes / GIB:.15g}"
    hidden = {"versions": _text(dict(job.versions))} if job.versions else {}
    return _form(texts, hidden, None)


def form_of_texts(texts: dict[str, str], fault: str | None) -> Form:
    """The form with what was typed, where it is no job: nothing that a person wrote is lost. Where no model is named,
    the rest is the first visitor's, as `app.page.query.job_of_query` has it."""
    empty = form_of_job(Job(model="") if "model" in texts else parse_job(dict(FIRST_JOB))).texts
    hidden = {"versions": texts["versions"]} if texts.get("versions") else {}
    return _form({**empty, **{key: text for key, text in texts.items() if key in empty}}, hidden, fault)


def _form(texts: dict[str, str], hidden: dict[str, str], fault: str | None) -> Form:
    choices = {**CHOICES, "weights": WEIGHT_CHOICES, "gpu": _gpus()}
    for key, listed in choices.items():
        # What a link asks for and no choice has stays as it is: another card, two weight formats at once.
        if texts[key] not in {value for value, _ in listed}:
            choices[key] = (*listed, (texts[key], f"{_label(texts[key])} (as given)"))
    return Form(texts, choices, hidden, fault)


def _gpus() -> Choices:
    return tuple((card["name"], f"{card['name']} · {gib(card['total_bytes'])} GiB") for card in gpus())


def _label(text: str) -> str:
    return gpu_name(Job(model="", gpu=_described(text))) if text.startswith("{") else text[:60]


def _described(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, dict) and "name" in found else text


def _text(value: Any) -> str:
    return "" if value is None else text_of(value)
