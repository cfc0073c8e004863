"""A rate-limited log for lines that peers cause: some lines a minute, then a count of the rest."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

__all__ = ["RateLimitedLog"]

LINES = 20
PERIOD = 60.0
"""Seconds in which a fixed number of lines is logged, so that no peer can fill the disk."""


class _Minute:
    """The lines of one level in the current minute."""

    __slots__ = ("lines", "since")

    def __init__(self) -> None:
        self.since = -PERIOD
        self.lines = 0


class RateLimitedLog:
    """Logs lines about one peer or one server, and counts the lines beyond the limit.

    Each level has its own limit, so that lines about peers hide no bug.

    Args:
        logger: the logger that gets the lines.
        lines: the number of lines per minute, for each level.
    """

    __slots__ = ("_allowed", "_logger", "_minutes")

    def __init__(self, logger: logging.Logger, lines: int = LINES) -> None:
        self._logger = logger
        self._allowed = lines
        # Bound: one for each level that the program uses.
        self._minutes: dict[int, _Minute] = {}

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
        minute = self._minutes.get(level)
        if minute is None:
            minute = self._minutes[level] = _Minute()
        if now - minute.since >= PERIOD:
            if minute.lines > self._allowed:
                missed = minute.lines - self._allowed
                self._logger.log(level, "%d more lines were not logged", missed)
            minute.since, minute.lines = now, 0
        minute.lines += 1
        if minute.lines <= self._allowed:
            self._logger.log(level, text, *args, exc_info=exc_info, extra=extra)
