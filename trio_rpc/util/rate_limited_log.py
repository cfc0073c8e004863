"""A rate-limited log for lines that peers cause: some lines a minute, then a count of the rest."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

__all__ = ["RateLimitedLog"]

LINES = 20
PERIOD = 60.0
"""Seconds in which a fixed number of lines is logged, so that no peer can fill the disk."""


class RateLimitedLog:
    """Logs lines about one peer or one server, and counts the lines beyond the limit.

    Args:
        logger: the logger that gets the lines.
        lines: the number of lines per minute.
    """

    __slots__ = ("_allowed", "_lines", "_logger", "_since")

    def __init__(self, logger: logging.Logger, lines: int = LINES) -> None:
        self._logger = logger
        self._allowed = lines
        self._since = -PERIOD
        self._lines = 0

    def log(
        self,
        level: int,
        text: str,
        *args: object,
        exc_info: BaseException | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Log a line, or count it if this minute's lines are used up."""
        now = trio.current_time()
        if now - self._since >= PERIOD:
            if self._lines > self._allowed:
                missed = self._lines - self._allowed
                self._logger.log(level, "%d more lines were not logged", missed)
            self._since, self._lines = now, 0
        self._lines += 1
        if self._lines <= self._allowed:
            self._logger.log(level, text, *args, exc_info=exc_info, extra=extra)
