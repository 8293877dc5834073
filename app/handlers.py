"""Turns what a route raises into a problem document."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.admission import Overloaded, retry_after
from app.apart_child import NoProcess
from app.calibration_database import with_cause
from app.problems import KINDS, code_of_status, problem, problem_of
from ctxplan.calibration_keeping import StoreUnavailable
from estimator.errors import CtxplanError


class BodyTooLarge(HTTPException):
    """More bytes have come than a body may have."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(413, f"the body is larger than {limit_bytes} bytes")


def install_handlers(app: FastAPI) -> None:
    """Have ``app`` answer every expected error with a problem document; `app.observe` covers the
    unexpected."""
    app.add_exception_handler(CtxplanError, _library_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    for gone in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(gone, _database_gone)


def _library_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CtxplanError)  # noqa: S101 - narrows the type that the registration guarantees
    headers = retry_after(1) if isinstance(error, Overloaded | NoProcess) else None
    if isinstance(error, StoreUnavailable):
        request.state.log.warning(
            "the calibrations failed", request_id=request.state.request_id, detail=with_cause(error)
        )
    return problem_of(request.scope, error, headers=headers)


def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    faults = [
        {"key": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"], "allowed": None}
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['key']}: {fault['message']}" for fault in faults)
    return problem(request.scope, "invalid-request", detail, errors=faults)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = code_of_status(error.status_code)
    # Starlette's own detail is the status in words, which the title says already.
    detail = KINDS[code].explanation if error.detail == HTTPStatus(error.status_code).phrase else error.detail
    return problem(request.scope, code, detail, status=error.status_code, headers=error.headers)


def _database_gone(request: Request, error: Exception) -> Response:
    line = str(error).splitlines()[0]
    request.state.log.warning("the database failed", request_id=request.state.request_id, detail=line)
    return problem(request.scope, "queue-unavailable", "the database does not answer; the log has the cause")
