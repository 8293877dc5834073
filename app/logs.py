"""Structured logs, one JSON object a line on standard error, without the secrets that who wrote a line overlooked."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING

import structlog

from app.keys.form import SHOWN_CHARACTERS, START

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

    from app.settings import LogLevel

HIDDEN = "[hidden]"
_SECRETS = re.compile(
    # What of a key may be shown stays: by it, its row is found.
    rf"(?<={START}[0-9A-Za-z]{{{SHOWN_CHARACTERS - len(START)}}})[0-9A-Za-z]{{20,}}"
    # A token of the Hub.
    r"|(?<=\bhf_)[0-9A-Za-z]{8,}"
    # What an Authorization header says, whatever it is: of a lease, of a proxy.
    r"|(?<=[Bb]earer )[^\s\"'\\]+|(?<=[Bb]asic )[A-Za-z0-9+/=]{8,}"
    # A browser's session.
    r"|(?<=ctxplan_session=)[^\s;\"'\\]+"
    # The password of an address.
    r"|(?<=://)[^\s/@:\"'\\]*:[^\s/@\"'\\]+(?=@)"
)


def make_logger(level: LogLevel) -> FilteringBoundLogger:
    """A logger of its own, that changes no global configuration."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            structlog.processors.JSONRenderer(),
            _without_secrets,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    return logger


def hide(text: str) -> str:
    """A text without what is written as a key, a token, or an address' password."""
    return _SECRETS.sub(HIDDEN, text)


class FromLibraries(logging.Handler):
    """Writes what libraries say by `logging` as lines of the service's own log.

    Args:
        log: takes them.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """One line, with the traceback where there is one."""
        try:
            write = self._log.error if record.levelno >= logging.ERROR else self._log.warning
            write(record.getMessage(), logger=record.name, exc_info=record.exc_info)
        except Exception:
            self.handleError(record)


def _without_secrets(_: WrappedLogger, __: str, line: EventDict) -> str:
    return hide(str(line))
