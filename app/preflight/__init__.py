"""Preflight: whether a launcher's config fits the card that it is to run on, before anything is started."""

from __future__ import annotations

from app.preflight.check import Preflight, check
from app.preflight.question import Question
from app.preflight.token_report import TokenReport, read_token_report

__all__ = ["Preflight", "Question", "TokenReport", "check", "read_token_report"]
