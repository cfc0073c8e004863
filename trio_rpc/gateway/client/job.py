"""A job in the Python client: work that a gateway does, whether or not a client watches it."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Mapping
from typing import Any, Final

import trio

from trio_rpc.errors import Fate, SessionBroken, Unavailable
from trio_rpc.gateway.client.http import WebClient
from trio_rpc.gateway.client.outcomes import Callback, call_with, result_of
from trio_rpc.gateway.json_messages import SPREAD
from trio_rpc.util.reconnect import full_jitter

__all__ = ["Job"]

logger = logging.getLogger("trio_rpc.gateway")

_ID: Final = re.compile(r"(?:[A-Za-z0-9_-]{1,64}~)?[0-9a-f-]{36}\.[A-Za-z0-9_-]{16,}", re.ASCII)

WAIT: Final = 20
"""Seconds that one request waits for news."""

OUTAGE: Final = 60
"""Seconds after which a gateway that cannot be reached any more is given up."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""The longest pause between attempts to reach it, in seconds: at first, and later on."""

PACE, IDLE_PACE = 0.1, 1.0
"""The shortest time between two requests, in seconds: after one with news, and without."""


class Job:
    """A job: a call of a method marked with :func:`outlives`, which no client owns.

    :meth:`Message.start` and :meth:`Message.job` return it. Any number of clients may use it at
    once. The gateway holds its result for ``result_ttl`` seconds after its end.

    Example:
        >>> async def build(message: trio_rpc.gateway.Message) -> None:
        ...     job = await message.start("build", {"year": 2024})
        ...     print("the id, for later:", job.id)
        ...     print(await job.result({"progress": print}))

    Args:
        web: sends its requests.
        name: its id.

    Raises:
        ValueError: it is not the id of a job.
    """

    def __init__(self, web: WebClient, name: str) -> None:
        if not _ID.fullmatch(name):
            raise ValueError(f"not the id of a job: {name[:100]!r}")
        self._web = web
        self._uuid, _, self._token = name.partition(".")
        self._was_reached = False

    def __repr__(self) -> str:
        return f"<trio_rpc.gateway.Job {self._uuid}>"

    @property
    def id(self) -> str:
        """A text by which any client of the gateway finds the job again.

        Keep it secret: it is enough to watch the job, read its result and cancel it.
        """
        return f"{self._uuid}.{self._token}"

    async def result(self, callbacks: Mapping[str, Callback] | None = None) -> Any:
        """Wait for the end of the job, run callbacks meanwhile, and return the result.

        A callback gets the arguments with which the method has called it last, at once and then
        after each change, ten times a second at most. Arguments in between are skipped. If a
        callback raises, that is logged, and the job does not notice.

        Cancelling this stops waiting, and not the job. If the gateway cannot be reached for a
        while, this tries again for a minute.

        Args:
            callbacks: functions by the names of the method's parameters that take them.

        Raises:
            RemoteError: the method raised an exception.
            RemoteCancelled: the job was cancelled, or its time was up.
            SessionBroken: the gateway does not hold the job: it has ended too long ago, or the
                gateway has been started again since.
            Refused: the token in the id is not that of the job.
            OSError: the gateway cannot be reached.
        """
        seen = 0
        async with self._web:
            while True:
                began = trio.current_time()
                state = await self._ask("GET", after=seen, wait=WAIT)
                if state.get("type") != "running":
                    return result_of(state)
                news = int(state.get("news", 0))
                await self._run(state, callbacks or {})
                pace = PACE if news > seen else IDLE_PACE
                seen = news
                await trio.sleep_until(began + pace)

    async def progress(self) -> dict[str, Any]:
        """Return the latest argument of each callback that the method has called, by its name.

        A callback with several arguments has a list of them, or a dict if they have names.

        Raises:
            Exception: an error of :meth:`result`, but not of the method.
        """
        async with self._web:
            state = await self._ask("GET", after=0)
        callbacks = state.get("callbacks")
        return callbacks if type(callbacks) is dict else {}

    async def cancel(self) -> None:
        """Cancel the job, and wait until its handler has ended.

        :meth:`result` then raises RemoteCancelled, or returns a result that won the race.

        Raises:
            Exception: an error of :meth:`result`, but not of the method.
        """
        async with self._web:
            is_running = True
            while is_running:
                began = trio.current_time()
                state = await self._ask("DELETE", wait=WAIT)
                is_running = state.get("type") == "running"
                await trio.sleep_until(began + IDLE_PACE * is_running)

    async def _ask(self, verb: str, **query: int) -> dict[str, Any]:
        """Ask for the state of the job. If the gateway was reached before, try for a while."""
        failures, give_up_at = 0, math.inf
        while True:
            try:
                state = await self._web.job(verb, self._uuid, self._token, query)
                break
            except (OSError, SessionBroken, Unavailable):
                failures += 1
                give_up_at = min(give_up_at, trio.current_time() + OUTAGE)
                if not self._was_reached or trio.current_time() >= give_up_at:
                    raise
            await trio.sleep(full_jitter(failures, FIRST_PAUSE, LONGEST_PAUSE))
        self._was_reached = True
        if state is None:
            raise SessionBroken("job lost: the gateway does not hold it", fate=Fate.UNKNOWN)
        return state

    async def _run(self, state: Mapping[str, Any], callbacks: Mapping[str, Callback]) -> None:
        given = state.get("callbacks")
        for name, payload in (given if type(given) is dict else {}).items():
            if name not in callbacks:
                continue
            try:
                result = call_with(callbacks[name], name, payload, state.get(SPREAD))
                if isinstance(result, Awaitable):
                    await result
            except Exception as exc:  # the job has no use for it
                logger.warning("the callback %r failed", name, exc_info=exc)
