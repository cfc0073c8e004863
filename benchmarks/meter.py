"""The time of the clock and of the processors, at both ends, of the measured work."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Meter", "Used"]

Used = dict[str, float]


def _process_seconds(pid: int) -> float | None:
    """Return the CPU time of another process, with all its threads. None if it is unknown."""
    if sys.platform != "linux":
        return None
    # The number that clock_getcpuclockid gives on Linux; Python has no function for it.
    with contextlib.suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)
    return None


class Meter:
    """Measures from its creation until `stop`, without the blocks in `paused`.

    CPU time is steadier than the time of the clock when other programs also use the cores.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._server_start = _process_seconds(server)
        self._client_start = time.process_time()
        self._start = time.perf_counter()
        self._paused = self._paused_cpu = 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the work of this process in the block: the check of a result."""
        clock, cpu = time.perf_counter(), time.process_time()
        yield
        self._paused += time.perf_counter() - clock
        self._paused_cpu += time.process_time() - cpu

    def seconds(self) -> float:
        """Return the seconds of the clock so far."""
        return time.perf_counter() - self._start - self._paused

    def stop(self, operations: int) -> Used:
        """Return the microseconds of CPU time for each operation: of both ends, and of the client.

        They are missing on systems that do not tell the CPU time of another process.
        """
        client = time.process_time() - self._client_start - self._paused_cpu
        server = _process_seconds(self._server)
        if server is None or self._server_start is None:
            return {}
        both = client + server - self._server_start
        return {"cpu": both / operations * 1e6, "client_cpu": client / operations * 1e6}
