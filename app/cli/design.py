"""``ctxplan calibrate plan``: which few points pin a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.jobs import Json, Offline, takes_job
from app.cli.output import DONE, UNCERTAIN, leave, print_json, print_text
from app.cli.output import show as show_to_person
from app.cli.planner import planner
from estimator import Job
from estimator.errors import JobError
from estimator.rules import Choice as ChoiceRule

if TYPE_CHECKING:
    from probes.fitting.design import Design

CHECKPOINTING: dict[str, Any] = {"unsloth": "unsloth", "true": True, "false": False}
BATCHES: dict[str, Any] = {"flattened": "flattened", "dense": "dense", "packed": "packed"}

Checkpointing = Annotated[
    str | None,
    typer.Option("--checkpointing", metavar="LIST", show_default=False, help="Modes: unsloth, true, false."),
]
Batches = Annotated[
    str | None,
    typer.Option("--batches", metavar="LIST", show_default=False, help="Kinds of batch: flattened, dense, packed."),
]
TimeLimit = Annotated[float, typer.Option("--time-limit", metavar="SECONDS", min=1, help="On the GPU, all points.")]
Error = Annotated[
    float, typer.Option("--error", metavar="SHARE", min=1e-4, max=1, help="Standard error of the peak that is enough.")
]


def register(group: typer.Typer) -> None:
    """Add this file's command."""
    group.command("plan")(takes_model(plan))


def plan(
    job: Job,
    checkpointing: Checkpointing = None,
    batches: Batches = None,
    time_limit: TimeLimit = 300.0,
    error: Error = 0.005,
    as_json: Json = False,
    offline: Offline = False,
) -> None:
    """Choose the few twins to measure that pin a model's peak at max_seq_length, one it has never seen too.

    Prints points for ctxplan probe --sweep, a line each. Exit code 3 where they are not enough.
    """
    from app.cli.calibrate import need_the_fit

    need_the_fit()
    from probes.fitting.design import design, variants

    jobs = variants(job, _listed(checkpointing, "checkpointing", CHECKPOINTING), _listed(batches, "batches", BATCHES))
    planning = planner(offline=offline)
    facts = planning.facts(job.model)
    found = design(jobs, facts.architecture, calibration=planning.calibration, time_limit=time_limit, enough=error)
    answer = design_to_json(found)
    if as_json:
        print_json(answer)
    else:
        from app.render_calibrations import render_design

        show_to_person(lambda _: render_design(answer))
        print_text("".join(json.dumps(point) + "\n" for point in answer["points"]))
    raise typer.Exit(DONE if found.reached else UNCERTAIN)


def design_to_json(found: Design) -> dict[str, Any]:
    """A design as plain JSON values, its points as ``ctxplan probe --sweep`` takes them."""
    return {
        "points": found.points(),
        "choices": [
            {
                "num_hidden_layers": one.job.num_hidden_layers,
                "use_gradient_checkpointing": one.job.use_gradient_checkpointing,
                "batch": _batch(one.job),
                "sequence_length": one.length,
                "seconds": round(one.seconds, 1),
                "standard_error": one.standard_error,
            }
            for one in found.choices
        ],
        "before": found.before,
        "after": found.after,
        "seconds": round(found.seconds, 1),
        "reached": found.reached,
    }


def takes_model(command: Callable[..., None]) -> Callable[..., None]:
    """As `takes_job`, but what is named first may be a model: a Hub id or a directory."""
    inner = takes_job(command)

    def wrapped(job_file: str | None = None, **values: Any) -> None:
        if job_file is not None and job_file != "-" and not job_file.endswith(".json"):
            if values.get("model") is not None:
                leave(f"{job_file} and --model name two models")
            job_file, values["model"] = None, job_file
        inner(job_file=job_file, **values)

    signature = getattr(inner, "__signature__")  # noqa: B009 - set by takes_job
    first, *others = signature.parameters.values()
    named = typer.Argument(metavar="[MODEL|JOB.json|-]", show_default=False, help="A model, or a job as JSON.")
    first = first.replace(annotation=Annotated[str | None, named])
    wrapped.__signature__ = signature.replace(parameters=[first, *others])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in (first, *others)}
    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    return wrapped


def _listed(text: str | None, key: str, known: dict[str, Any]) -> Sequence[Any]:
    """A comma list of known words. Raises JobError with those that are."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if text is not None and not words:
        raise JobError("names nothing", key=key, allowed=", ".join(known))
    return [known[str(ChoiceRule(tuple(known)).parse(key, word))] for word in words]


def _batch(job: Job) -> str:
    if job.packing:
        return "packed"
    return {None: "the stack's choice", True: "flattened", False: "dense"}[job.padding_free]
