"""A job from a file, from standard input, from flags, or from a file with flags over it.

The flags are made from the estimator's own rules, one a key, so a key that is added there is a flag here.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.jsontext import MAX_DOCUMENT_BYTES, UnreadableJson, read_json
from estimator import Job, job_to_json, parse_job
from estimator.errors import CtxplanError, JobError
from estimator.job import RULES
from estimator.rules import Choice, Integer, Names, Number, Optional, Rule

HELP = {
    "model": "Hub id, or a directory with config.json.",
    "gpu": 'GPU name (ctxplan gpus), or {"name": ..., "total_bytes": ...}.',
    "max_seq_length": "Tokens that the model is loaded for.",
    "sequence_length": "Tokens of a sequence, where fewer than max_seq_length.",
    "num_hidden_layers": "Plan with fewer decoder layers than the model has.",
    "per_device_train_batch_size": "Sequences of a micro-batch.",
    "gradient_accumulation_steps": "Micro-batches of an optimizer step.",
    "load_in_4bit": "Weights in 4 bits; without any of the formats, this one.",
    "load_in_8bit": "Weights in 8 bits.",
    "load_in_16bit": "Weights in 16 bits, with adapters beside them.",
    "load_in_fp8": "Weights in fp8.",
    "full_finetuning": "Train all weights, without adapters.",
    "r": "LoRA rank.",
    "target_modules": "Comma list of LoRA targets, or all-linear.",
    "lora_dropout": "LoRA dropout; beyond 0 the fused kernels keep masks.",
    "modules_to_save": "Comma list of modules trained in full.",
    "use_gradient_checkpointing": "Where the layers' inputs stay: on the host, on the GPU, or all tensors there.",
    "optim": "The optimizer, by its name in transformers.",
    "packing": "Several samples in one row of max_seq_length.",
    "padding_free": "Batches flattened into one row; without it, what SFTTrainer chooses.",
    "unsloth_tiled_mlp": "The MLP in tiles, which is slower and narrower.",
    "offload_embedding": "The input embedding on the host; auto is Unsloth's rule.",
    "pin_host_memory": "Host buffers in pinned RAM; without it, Unsloth's rule.",
    "block_compile": "One torch.compile region a layer, for dense batches; without it, Unsloth's choice.",
    "attn_implementation": "The attention kernel; without it, what the stack would choose.",
    "framework": "Unsloth, or transformers and PEFT alone.",
    "mode": "Train, or generate.",
    "per_device_eval_batch_size": "Sequences of an evaluation batch; without it, none is planned.",
    "max_new_tokens": "Tokens to generate.",
    "host_ram_bytes": "Host RAM that may be used; without it, host RAM never limits.",
    "confidence": "Probability that the upper bound is to hold with.",
    "versions": "Comma list of package=version that the run will use.",
}
"""What each key of a job means, in a line."""
LAUNCHERS = frozenset({"base_model", "model_name_or_path", "training", "lora"})
"""Keys that only launchers' configs have."""
PREFLIGHT = "a launcher's config is checked with ctxplan preflight"
DEFAULTS = job_to_json(Job(model=""))

JobFile = Annotated[
    str | None,
    typer.Argument(metavar="[JOB.json|-]", show_default=False, help="The job as JSON; - reads standard input."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the Hugging Face Hub.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, on standard output.")]


def takes_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``job`` a parameter for the file and a flag for every key instead.

    The command's other parameters stay. Flags win over the file.
    """

    def wrapped(job_file: str | None = None, **values: Any) -> None:
        flags = {key: values.pop(key) for key in RULES}
        command(job=read_job(job_file, flags), **values)

    signature = inspect.signature(command, eval_str=True)
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in signature.parameters.values() if p.name != "job"]
    file = inspect.Parameter("job_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=JobFile)
    parameters = [file, *(_flag(key, rule) for key, rule in RULES.items()), *own]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    return wrapped


def read_job(job_file: str | None, flags: Mapping[str, Any]) -> Job:
    """Read the job.

    Raises:
        CtxplanError: the file cannot be read or is not JSON; the job is not one that can be planned.
    """
    given = {key: _value(key, RULES[key], text) for key, text in flags.items() if text is not None}
    if job_file is None:
        return parse_job(given)
    body = _bytes_of(job_file)
    try:
        data = read_json(body)
    except UnreadableJson as error:
        name = "standard input" if job_file == "-" else job_file
        reason = error.message if body.strip() else "is empty"
        if name.endswith((".yaml", ".yml")):
            raise UnreadableJson(f"{name}: is YAML, and a job is JSON here", allowed=f"JSON; {PREFLIGHT}") from None
        raise UnreadableJson(f"{name}: {reason}", key=error.key, allowed=error.allowed) from None
    if isinstance(data, dict) and LAUNCHERS & data.keys():
        launcher = next(key for key in data if key in LAUNCHERS)
        raise JobError("is a key of a launcher's config", key=launcher, allowed=f"the keys of a job; {PREFLIGHT}")
    if isinstance(data, dict) and isinstance(data.get("job"), dict):
        raise JobError("this is a point, which ctxplan probe measures", key="job", allowed="the value of job alone")
    return parse_job({**data, **given} if isinstance(data, dict) else data)


def _bytes_of(job_file: str) -> bytes:
    name = "standard input" if job_file == "-" else job_file
    try:
        if job_file == "-" and sys.stdin is None:
            raise ValueError("it is closed")
        if job_file == "-":
            body = sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1)
        else:
            with Path(job_file).open("rb") as file:
                body = file.read(MAX_DOCUMENT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableJson(f"{name}: cannot be read: {reason}") from None
    if len(body) > MAX_DOCUMENT_BYTES:
        raise UnreadableJson(f"{name}: larger than a job can be", allowed=f"at most {MAX_DOCUMENT_BYTES} bytes")
    return body


def _flag(key: str, rule: Rule) -> inspect.Parameter:
    name = "--" + key.replace("_", "-")
    text = _help(key, rule)
    if _is_switch(rule):
        option = typer.Option(f"{name}/--no-{name[2:]}", help=text, show_default=False)
        annotation: Any = Annotated[bool | None, option]
    else:
        option = typer.Option(name, help=text, metavar=_metavar(rule), show_default=False)
        annotation = Annotated[str | None, option]
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _help(key: str, rule: Rule) -> str:
    """What a flag means, and what is planned without it."""
    said = [HELP[key]]
    if not _is_switch(rule) and (choices := _choices(rule)):
        said.append(choices)
    default = DEFAULTS[key]
    if default not in (None, "", [], {}) and not isinstance(default, bool):
        said.append(f"(default: {','.join(default) if isinstance(default, list) else default})")
    return " ".join(said)


def _value(key: str, rule: Rule, text: str | bool) -> Any:
    """A flag's text as the JSON value that it stands for; what cannot be one is left for the rule to refuse
    by name."""
    if isinstance(text, bool):
        return text
    inner = _inner(rule)
    if isinstance(rule, Optional) and text == "null":
        return None
    if isinstance(inner, Integer):
        return _converted(int, text)
    if isinstance(inner, Number):
        return _converted(float, text)
    if isinstance(inner, Choice):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(inner, Names):
        return text if text in inner.shorthands else _list(text)
    if key == "versions":
        return _versions(text)
    if key in ("gpu", "model") and text.lstrip().startswith("{"):
        return _object(key, text)
    return text


def _converted(kind: Callable[[str], Any], text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _versions(text: str) -> dict[str, str | None]:
    pairs = [part.partition("=") for part in _list(text)]
    if not all(equals and version for _, equals, version in pairs):
        raise JobError(
            "is not a comma list of package=version", key="versions", allowed="torch=2.11.0,unsloth=2026.10.9"
        )
    return {package: None if version == "null" else version for package, _, version in pairs}


def _object(key: str, text: str) -> Any:
    try:
        return read_json(text.encode("utf-8", "surrogateescape"))
    except CtxplanError as error:
        raise JobError(error.message, key=key, allowed=error.allowed) from None


def _inner(rule: Rule) -> Rule:
    """The rule of a value that is not null."""
    return rule.rule if isinstance(rule, Optional) else rule


def _is_switch(rule: Rule) -> bool:
    inner = _inner(rule)
    return isinstance(inner, Choice) and set(inner.values) == {True, False}


def _choices(rule: Rule) -> str | None:
    inner = _inner(rule)
    if not isinstance(inner, Choice):
        return None
    return "One of: " + ", ".join(str(value).lower() for value in inner.values) + "."


def _metavar(rule: Rule) -> str:
    inner = _inner(rule)
    return {Integer: "N", Number: "X", Names: "LIST"}.get(type(inner), "TEXT")
