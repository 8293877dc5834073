"""The service's settings: one environment variable each, ``CTXPLAN_`` and the name in capitals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """Read once, when the service is made."""

    model_config = SettingsConfigDict(env_prefix="CTXPLAN_", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    log_level: LogLevel = "info"

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

    allow_hub: bool = True
    """Ask the Hugging Face Hub for models that are neither in the catalogue nor in its local cache."""

    allow_local_models: bool = False
    """Let a request name a directory of the server's disk. Off: nobody reads it through the service."""

    calibrations: Path | None = None
    """Directory of calibrations; by default that of the command line (`ctxplan.calibration_store`)."""

    allow_calibration: bool = False
    """Let requests fit calibrations and choose the active one. Off: whoever reaches the service can only read them."""

    calibration_refresh_seconds: float = Field(default=10.0, ge=0.05, le=86_400)
    """How often to look whether another process has made another calibration the active one."""

    lookup_threads: int = Field(default=8, ge=1, le=256)
    """How many models may be looked up at once; catalogued and remembered ones never wait."""
