"""Whether the process lives, whether it can plan, and what it has done."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.catalogue import gpus, models
from app.dependencies import jobs_of, plans_of
from app.metrics import Metrics
from app.openapi import problems
from app.problems import problem
from app.schemas import Health, Readiness
from app.security import OPEN, Gate
from ctxplan import __version__
from estimator import Job

router = APIRouter(tags=["operations"], dependencies=[OPEN], responses=problems())

SAMPLE = Job(
    model={
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
)
"""A job that needs neither disk nor network: if it cannot be planned, nothing can."""


@router.get("/healthz", responses={200: {"model": Health}})
async def healthz() -> Response:
    """Say that the process answers; touches nothing else."""
    return json_answer({"status": "ok", "version": __version__})


@router.get("/readyz", responses={200: {"model": Readiness}, **problems(503)})
async def readyz(request: Request) -> Response:
    """Load the catalogues and make an estimate; where every request needs a key, see that keys can be checked."""
    if request.state.stopping.is_set():
        return _not_ready(request, "the service is being stopped")
    try:
        answer = await plans_of(request).estimate(SAMPLE)
        known = {"models": len(models()), "gpus": len(gpus())}
    except Exception:  # whatever it is, the answer is "not ready", and the log has the cause
        request.state.log.exception("not ready", request_id=request.state.request_id)
        return _not_ready(request, "an estimate could not be made; the log has the cause")
    if not await plans_of(request).is_able():
        return _not_ready(request, "no process can be started that would work on plans")
    gate: Gate = request.state.gate
    if gate.required and not await request.state.backend.can_check_keys():
        return _not_ready(request, "no key can be checked: the database or their secret is not there")
    return json_answer({"status": "ready", **known, "calibration": answer.calibration})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Counters in Prometheus' text format, by route template; the queue's by the kind of GPU."""
    counted: Metrics = request.state.metrics
    counted.queue.counts = await jobs_of(request).counting.latest()
    return Response(counted.text(), media_type="text/plain; version=0.0.4")


def _not_ready(request: Request, detail: str) -> Response:
    return problem(request.scope, "not-ready", detail)
