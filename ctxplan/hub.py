"""A model's config.json from the Hugging Face cache or the Hub, within seconds, whatever the network does.

huggingface_hub is imported where it is needed: it takes longer than a plan.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from estimator.errors import UnknownModel
from estimator.rules import shorten

Result = TypeVar("Result")

MAX_CONFIG_BYTES = 4 * 2**20
"""A larger config.json is none, and is not fetched."""

NETWORK_SECONDS = 7.0
"""How long the Hub may take in all; a caller without a network has its answer within 8 s."""
ETAG_SECONDS = 3.0
CONFIG = "the config object itself"
INSTEAD = f"a directory with its config.json, or {CONFIG}"
"""What names a model beside a Hub id; where no directory is read, ``CONFIG`` alone."""

_REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?")
_REVISION = re.compile(r"(?!.*\.\.)[\w][\w./-]{0,127}")
_NO_HUB = "the Hub cannot be reached and it is not in the local cache"
_TRUE = frozenset({"1", "true", "yes", "on"})


class NotFetched(UnknownModel):
    """The Hub did not give what it was asked for; ``reason`` says why."""

    reason = ""


class Fetched(NamedTuple):
    """A file on disk, and the commit that it is of."""

    path: Path
    revision: str | None


def check_names(repository: str, revision: str | None) -> None:
    """Refuse what cannot be a repository or a revision before anything is asked. Raises UnknownModel."""
    if not _REPOSITORY.fullmatch(repository):
        raise UnknownModel(f'"{shorten(repository)}" is not a Hub id', key="model", allowed=f"ORG/NAME, {INSTEAD}")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise UnknownModel(
            f'"{shorten(revision)}" is not a revision', key="revision", allowed="a branch, tag or commit"
        )


def from_cache(repository: str, revision: str | None, filename: str = "config.json") -> Fetched | None:
    """The file that a download has left in the local cache, None without one. Asks no network."""
    if not (cache_directory() / f"models--{repository.replace('/', '--')}").is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, filename, revision=revision, cache_dir=cache_directory())
    return _fetched(Path(found)) if isinstance(found, str) else None


def from_hub(repository: str, revision: str | None) -> Fetched:
    """Download the config, pinned to the commit that the revision is now.

    Raises:
        UnknownModel: no network, no such repository, or no right to read it; the message says what to pass
        instead.
    """
    if is_offline():
        raise _unreachable(repository, "HF_HUB_OFFLINE is set and it is not in the local cache")

    def download() -> Path:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

        address = hf_hub_url(repository, "config.json", revision=revision, endpoint=endpoint())
        size = get_hf_file_metadata(address, timeout=ETAG_SECONDS).size or 0
        if size > MAX_CONFIG_BYTES:
            raise OSError(f"its config.json has {size} bytes")
        kept = hf_hub_download(
            repository,
            "config.json",
            revision=revision,
            etag_timeout=ETAG_SECONDS,
            cache_dir=cache_directory(),
            endpoint=endpoint(),
        )
        return Path(kept)

    return _fetched(ask_hub(repository, download))


def ask_hub(repository: str, question: Callable[[], Result], seconds: float = NETWORK_SECONDS) -> Result:
    """Ask the Hub something, for so long and no longer. Raises NotFetched with what went wrong."""
    results: list[Result] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            _connect()
            results.append(question())
        except Exception as error:  # whatever the client raises becomes one of our errors below
            errors.append(error)

    # A daemon, so that a connection that hangs does not keep the process alive.
    worker = Thread(target=work, daemon=True, name="ctxplan-hub")
    worker.start()
    worker.join(seconds)
    if results:
        return results[0]
    if errors:
        raise _unreachable(repository, _reason(errors[0])) from errors[0]
    raise _unreachable(repository, f"the Hub did not answer within {seconds:g} s")


def _connect() -> None:
    """See whether the Hub's port answers, because the client retries for much longer. Raises OSError."""
    url = urlsplit(endpoint())
    if getproxies().get(url.scheme) or not url.hostname:
        return  # a proxy answers for it
    port = url.port or (80 if url.scheme == "http" else 443)
    socket.create_connection((url.hostname, port), timeout=ETAG_SECONDS).close()


def endpoint() -> str:
    """Where the Hub is: ``HF_ENDPOINT`` as it is now, not as it was when huggingface_hub was imported."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def is_offline() -> bool:
    """Whether the environment forbids the network, as huggingface_hub reads it."""
    named = (os.environ.get("HF_HUB_OFFLINE", ""), os.environ.get("TRANSFORMERS_OFFLINE", ""))
    return any(value.lower() in _TRUE for value in named)


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    reasons: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, "the repository is gated: log in with a token that may read it"),
        (errors.RepositoryNotFoundError, "the Hub has no such repository, or it is private"),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
        (errors.LocalEntryNotFoundError, _NO_HUB),
        (errors.EntryNotFoundError, "the repository has no such file"),
        (errors.HfHubHTTPError, "the Hub answered with an error"),
        (OSError, _NO_HUB),
    )
    # The client looks in its cache when the Hub fails, and reports that; the failure itself is the cause.
    told = error.__cause__ if isinstance(error.__cause__, errors.HfHubHTTPError) else error
    for kind, reason in reasons:
        if isinstance(told, kind):
            return reason
    return f"the Hub cannot be read ({type(error).__name__})"


def _unreachable(repository: str, reason: str) -> NotFetched:
    error = NotFetched(
        f'"{shorten(repository)}" is not in the catalogue, and {reason}',
        key="model",
        allowed=f"pass {INSTEAD}",
    )
    error.reason = reason
    return error


def _fetched(path: Path) -> Fetched:
    """The cache keeps a file under ``snapshots/COMMIT/``."""
    commit = path.parent.name
    return Fetched(path, commit if re.fullmatch(r"[0-9a-f]{40}", commit) else None)


def cache_directory() -> Path:
    """Where huggingface_hub keeps models; read from the environment each time, without importing it.

    Source: huggingface_hub, ``constants.py`` ``HF_HUB_CACHE``.
    """
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.environ[name]).expanduser()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"
