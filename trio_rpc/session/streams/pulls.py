"""Filters around a pull: a stream that a handler got, and opens by its first ``receive``.

The filters of a pull run in a task of the session, since the pull has no block: it begins with the
first ``receive``, and ends with the stream, with ``aclose`` or with the handler.

::

    receive ---- starts the task ----> filters ---- proceed ----> the pull is open
    receive <--- the call ------------------------------------------ |
      ...                                                            |  the pull ends, or a filter
    receive <--- the end, or the filter's error ---- filters <------ '  is cancelled and closes it

1. An error of a filter before it proceeds is raised by the first ``receive``.
2. A consumer gets the end of its stream when the filters have ended. So a filter can replace it.
   If a filter closes the pull, the consumer then waits for the filters, and not in the call.
3. When the handler ends, the stream is dropped, and the filters are cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio

from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.calls.outgoing_call import CallView, OutgoingCall, describe_exception
from trio_rpc.util.places import keep_all_places

__all__ = ["FilteredPull"]

OpenPull: TypeAlias = Callable[..., Awaitable[OutgoingCall]]
RunFilters: TypeAlias = Callable[[Callable[..., Awaitable[None]]], Awaitable[Any]]


class FilteredPull:
    """One pull, inside its filters.

    Args:
        outgoing: the outgoing calls; the pull is one of them.
        open_pull: opens the pull, with the filters' view of it as ``view``.
        run_filters: runs the filters around a function, which also gets ``view``.
    """

    def __init__(
        self, outgoing: OutgoingCalls, open_pull: OpenPull, run_filters: RunFilters
    ) -> None:
        self._outgoing = outgoing
        self._open_pull = open_pull
        self._run_filters = run_filters
        self.is_closing = False
        """Whether a filter has been cancelled and closes the pull."""
        self._scope = trio.CancelScope()
        self._has_begun = False
        self._pull: OutgoingCall | None = None
        self._ended = trio.Event()
        self._over = trio.Event()
        self._error: Exception | None = None

    async def run(self, *, task_status: trio.TaskStatus[OutgoingCall]) -> None:
        """Run the filters until the pull has ended. It is started with the pull, once it is open.

        Raises an error of a filter only before that; later ones are for the consumer.
        """

        async def proceed(*, view: CallView) -> None:
            if self._over.is_set():
                raise RuntimeError("a filter proceeded after it had returned")
            if self._has_begun:
                raise RuntimeError("a filter proceeded twice, but a stream is opened only once")
            self._has_begun = True
            pull = self._pull = await self._open_pull(view=view)
            task_status.started(pull)
            try:
                await self._ended.wait()
            except BaseException as exc:
                self.is_closing = True
                pull.wake()  # the consumer, since only one task can wait in a call
                await self._outgoing.close(pull, describe_exception(exc))
                raise

        try:
            with self._scope:
                await self._run_filters(proceed)
        except Exception as exc:
            if self._pull is None:
                raise
            keep_all_places(exc)  # their frames hold this object
            self._error = exc
        else:
            if not self._has_begun:
                raise RuntimeError("a filter returned without proceeding, so nothing was opened")
        finally:
            self._over.set()

    def end(self) -> None:
        """Resume the filters, since the pull has ended."""
        self._ended.set()

    def cancel(self, reason: str) -> None:
        """Cancel the filters, since the handler has ended and its stream is dropped."""
        self._scope.cancel(reason=reason)

    async def wait_over(self) -> None:
        """Wait until the filters have ended; raise the error of one that has failed."""
        await self._over.wait()
        if self._error is not None:
            raise self._error
