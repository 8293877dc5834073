"""A bare FastAPI route with the service's request and response models: what the framework alone costs.

``python -m benchmarks.bare`` serves it the way ``ctxplan serve`` serves the service: uvicorn, one process, no
access log.
"""

from __future__ import annotations

import json
import sys

import uvicorn
from fastapi import FastAPI

from app.listen import listen
from app.schemas import EstimateAnswer
from benchmarks.sample import JOB
from ctxplan import estimate
from estimator import Job

app = FastAPI()
ANSWER = EstimateAnswer.model_validate(estimate(JOB).to_json())


@app.post("/v1/estimates")
async def bare(job: Job) -> EstimateAnswer:
    """Give the same answer to every job."""
    return ANSWER


if __name__ == "__main__":
    listening = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    print(json.dumps({"event": "serving", "address": address}), file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])
