"""The service's settings: one environment variable each, ``CTXPLAN_`` and the name in capitals."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import DirectoryPath, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from ctxplan.variables import API_KEY, SERVER

LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """Read once, when the service is made."""

    model_config = SettingsConfigDict(env_prefix="CTXPLAN_", frozen=True, use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """The address to listen on. On any but loopback every request needs an API key."""

    port: int = Field(default=8000, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""

    log_level: LogLevel = "info"
    """The least level of the log's lines."""

    database_url: str = "sqlite+aiosqlite:///ctxplan.db"
    """Where jobs, measurements, calibrations and keys are kept: a SQLite file, or PostgreSQL for several replicas."""

    require_keys: bool | None = None
    """Whether every request needs an API key. By default on every address but loopback; `false` there leaves it to
    whatever stands in front of the service."""

    keys_secret: SecretStr | None = Field(default=None, min_length=32)
    """What API keys are hashed with, the same for all replicas. By default a file's, made on first use."""

    keys_secret_file: Path | None = None
    """That file; by default beside SQLite's own, with `.secret` added to its name."""

    lease_seconds: int = Field(default=60, ge=5, le=3600)
    """How long a worker may be silent over a job before another may have it."""

    probe_time_limit_seconds: int = Field(default=1800, ge=10, le=86_400)
    """What a worker is told that one point may take."""

    sweep_seconds: float = Field(default=5.0, ge=0.02, le=3600)
    """How often leases that ran out are ended and campaigns whose jobs have ended are fitted."""

    event_seconds: float = Field(default=1.0, ge=0.02, le=60)
    """How often the events of a campaign look for what has changed."""

    max_body_bytes: int = Field(default=2**20, ge=1024, le=2**30)
    """A larger request body is refused before it is held."""

    allowed_hosts: str | None = None
    """Names, without scheme or port and with commas between them, by which a service on loopback may be called without
    a key, beside loopback's own: a page on the web can make its own name lead to this machine."""

    requests_per_second: float | None = Field(default=None, ge=0, le=1e6)
    """How many requests one API key, or an address without one that has opened something, may make; two seconds' worth
    at once, and ten times as many for all keys of an address. 0: any number. By default 100 where keys are required,
    and any number elsewhere."""

    max_lag_ms: int = Field(default=100, ge=5, le=10_000)
    """How far the service may be behind before it refuses requests with 503, so that the others stay quick."""

    planning_processes: int = Field(default=1, ge=0, le=64)
    """How many processes work on plans, preflights and pages, which take tens of milliseconds; about 40 MiB each. 0: a
    thread of the service does, and everything else waits for it."""

    max_waiting_plans: int = Field(default=128, ge=0, le=10_000)
    """How many of them may wait for that, and how many others each for a look-up, a count of tokens, a fit, or the
    queue's reckoning; more are refused with 503, and so is a plan that has waited for 5 seconds."""

    secrets_dir: DirectoryPath | None = None
    """A directory whose files are settings, each by its variable's name: `ctxplan_database_url`, `ctxplan_keys_secret`.
    Where an orchestrator mounts secrets; a variable that is set goes before a file."""

    allow_hub: bool = True
    """Ask the Hugging Face Hub for models that are neither in the catalogue nor in its local cache."""

    hub_hosts: str | None = None
    """Hosts that the Hub may send a download on to, beside that of `HF_ENDPOINT`; commas between them, and `*.` for all
    within a domain. By default the Hub's own, `*.huggingface.co,*.hf.co`, and none where `HF_ENDPOINT` is another's."""

    allow_local_models: bool = False
    """Let a request name a directory of the server's disk. Off: nobody reads it through the service."""

    calibrations: Path | None = None
    """Directory of calibrations, which is made at the start; by default that of the command line
    (`ctxplan.calibration_store`)."""

    allow_calibration: bool = False
    """Let requests fit calibrations and choose the active one. Off: whoever reaches the service can only read them."""

    calibration_refresh_seconds: float = Field(default=10.0, ge=0.05, le=86_400)
    """How often to look whether another process has made another calibration the active one."""

    lookup_threads: int = Field(default=8, ge=1, le=256)
    """How many models may be looked up at once; catalogued and remembered ones never wait."""

    @field_validator("allowed_hosts", "hub_hosts")
    @classmethod
    def _are_hosts(cls, value: str | None, about: ValidationInfo) -> str | None:
        """Refuse what no host can be equal to, such as an address with its scheme or port."""
        domain = "*." if about.field_name == "hub_hosts" else ""
        for name in filter(None, map(str.strip, (value or "").split(","))):
            if not _is_host(name.removeprefix(domain)):
                allowed = "names of hosts without scheme, port or path, and commas between them"
                raise ValueError(f'"{name[:80]}" is no name of a host (allowed: {allowed})')
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, then the files of ``secrets_dir``; one that is not there is refused when it is validated."""
        folder = os.environ.get("CTXPLAN_SECRETS_DIR")
        there = folder and Path(folder).is_dir()
        files = (SecretsSettingsSource(settings_cls, secrets_dir=folder),) if there else ()
        return (init_settings, env_settings, *files)


PREFIX = "CTXPLAN_"
REPLACED = {"PLANNING_THREADS": "PLANNING_PROCESSES"}
"""Settings that there were, and what stands in their place."""
NEARLY = 0.85
"""How much of two names is alike where one is taken for the other misspelt (`difflib`)."""
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE | re.ASCII)
"""What stands between the dots of a host's name."""


def _is_host(name: str) -> bool:
    """Whether a text is the name or the address of a host, alone."""
    try:
        ip_address(name)
    except ValueError:
        return len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))
    return True


def words_of(error: ValidationError) -> str:
    """The first fault of the settings, with its variable's name."""
    fault = error.errors()[0]
    variable = f"{PREFIX}{'_'.join(str(part) for part in fault['loc']).upper()}"
    if fault["type"] == "too_short":  # a secret's characters, which pydantic calls its items
        return f"{variable}: should have at least {fault['ctx']['min_length']} characters"
    return f"{variable}: {fault['msg'].removeprefix('Value error, ')}"


def misspelt(environment: Iterable[str]) -> tuple[str, str] | None:
    """The first variable that is nearly a setting's, and that setting's; None where none is.

    Others that begin alike are left alone: Kubernetes names services' addresses so, and other programs have their own.
    """
    ours = [name.upper() for name in Settings.model_fields]
    known = {*ours, SERVER.removeprefix(PREFIX), API_KEY.removeprefix(PREFIX)}
    for name in sorted(environment):
        rest = name.upper().removeprefix(PREFIX)
        if not name.upper().startswith(PREFIX) or rest in known:
            continue
        if rest in REPLACED:
            return name, f"{PREFIX}{REPLACED[rest]}"
        for meant in get_close_matches(rest, ours, n=1, cutoff=NEARLY):
            return name, f"{PREFIX}{meant}"
    return None
