"""Log lines that strangers cause: so many, and then a count of the rest."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

__all__ = ["Complaints"]

LINES = 20
PERIOD = 60.0
"""Seconds in which so many lines are logged; a peer that does nothing but wrong fills no disk."""


class Complaints:
    """Logs for one peer, or one server; each line beyond what is allowed is counted instead."""

    __slots__ = ("_lines", "_logger", "_since")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
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
        """Log a line, as the logger would, unless there have been too many."""
        now = trio.current_time()
        if now - self._since >= PERIOD:
            if self._lines > LINES:
                self._logger.log(level, "%d more lines were not logged", self._lines - LINES)
            self._since, self._lines = now, 0
        self._lines += 1
        if self._lines <= LINES:
            self._logger.log(level, text, *args, exc_info=exc_info, extra=extra)
