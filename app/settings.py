"""The service's settings: one environment variable each, ``CTXPLAN_`` and the name in capitals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
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
