"""Preflight: whether a launcher's config fits the card that it is to run on, before anything is started."""

from __future__ import annotations

from app.preflight.check import Preflight, check
from app.preflight.question import Question, at_config, model_of
from app.preflight.token_report import TokenReport, read_token_report

__all__ = ["Preflight", "Question", "TokenReport", "at_config", "check", "model_of", "read_token_report"]
