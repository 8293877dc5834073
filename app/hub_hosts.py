"""Which hosts a look-up on the Hub may reach: that of ``HF_ENDPOINT``, and where its operator lets it send downloads.

A model's name never chooses a host (`ctxplan.hub.check_names`), but an answer could: the Hub redirects to where it
keeps large files. Every request of huggingface_hub's client is looked at here, redirected ones too, before it is sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ctxplan import hub

if TYPE_CHECKING:
    import httpx

OWN_HOSTS = "huggingface.co"
DEFAULT = "*.huggingface.co,*.hf.co"
PORTS = {"http": 80, "https": 443}


class HostNotAllowed(OSError):
    """A look-up was sent on to a host that the operator did not allow."""


def set_environment() -> None:
    """Before huggingface_hub is imported: no token of the operator's for whoever asks, and no second client that would
    download without being looked at."""
    os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    os.environ["HF_HUB_DISABLE_XET"] = "1"


def hold_to_hosts(hosts: str | None, *, refused: Callable[[str], None]) -> None:
    """Have huggingface_hub's client reach nothing else, from now on and in the whole process.

    Args:
        hosts: the setting ``hub_hosts``. refused: told the host, where one is.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def check(request: httpx.Request) -> None:
        if not is_allowed(str(request.url), hub.endpoint(), hosts):
            refused(request.url.host)
            raise HostNotAllowed(f"{request.url.host} is not the Hub's")

    def client() -> httpx.Client:
        made = default_client_factory()
        made.event_hooks["request"].append(check)
        return made

    set_client_factory(client)


def is_allowed(url: str, endpoint: str, hosts: str | None) -> bool:
    """Whether an address may be asked: the endpoint's own host and port, or one of ``hosts`` by https."""
    asked, own = urlsplit(url), urlsplit(endpoint)
    if _place(asked.scheme, asked.hostname, asked.port) == _place(own.scheme, own.hostname, own.port):
        return True
    if hosts is None:
        hosts = DEFAULT if own.hostname == OWN_HOSTS else ""
    if asked.scheme != "https" or asked.port not in (None, 443) or not asked.hostname:
        return False
    return any(_matches(asked.hostname, one.strip().lower()) for one in hosts.split(","))


def _place(scheme: str, host: str | None, port: int | None) -> tuple[str, str | None, int | None]:
    return scheme, host, port or PORTS.get(scheme)


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return len(pattern) > 2 and host.endswith(pattern[1:])
    return bool(pattern) and host == pattern
