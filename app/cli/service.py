"""What commands share that speak to a running service; httpx is imported here, and so this file only where one does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx

from app.cli.output import BAD_INPUT, UNREACHABLE, leave
from ctxplan.client import Client, Retries, ServiceError
from ctxplan.variables import API_KEY

TIMEOUT_SECONDS = 60.0
AWAY = Retries(most=10)
"""Who follows a campaign waits for half a minute or so while the service starts again."""


def client_of(server: str) -> httpx.Client:
    """A client of a service, with the key of the environment; the key is written nowhere."""
    key = os.environ.get(API_KEY)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return _Client(base_url=server, headers=headers, timeout=TIMEOUT_SECONDS)


class _Client(httpx.Client):
    """Leaves with exit code 4 where nobody answers."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        try:
            return super().send(request, **options)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            leave(f"{request.url.copy_with(path='/')} cannot be reached: {error}", code=UNREACHABLE)


def followed(client: httpx.Client, campaign: int) -> Iterator[dict[str, Any]]:
    """Every state of a campaign until it has ended. Where the events break off, they are asked for again
    (`ctxplan.client.Client.watch_campaign`). Leaves with what is wrong where they are not to be had."""
    key = os.environ.get(API_KEY) or None
    with Client(str(client.base_url), api_key=key, timeout=TIMEOUT_SECONDS, retries=AWAY) as one:
        try:
            for told in one.watch_campaign(campaign):
                yield {**told}
        except ServiceError as error:
            leave(str(error), code=error.exit_code)


def answer(response: httpx.Response) -> dict[str, Any]:
    """The document of an answer. Leaves with the problem's own words where it is one."""
    try:
        document = response.json()
    except ValueError:
        document = {}
    if response.is_success and isinstance(document, dict):
        return document
    detail = document.get("detail") if isinstance(document, dict) else None
    what = f"the service answers {response.status_code}: {detail or response.reason_phrase}"
    leave(what, code=UNREACHABLE if response.status_code >= 500 else BAD_INPUT)
