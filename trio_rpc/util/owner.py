"""The Trio run that an object belongs to.

Used in another run, a session, a pool or an iterator over states would wait forever there, and
might corrupt its own run.
"""

from __future__ import annotations

import inspect
import threading

from trio.lowlevel import current_root_task

from trio_rpc.util.per_run import PerRun

__all__ = ["Owner", "owner_of_sessions"]


class Owner:
    """The run in which an object was made, and for error texts the thread.

    Args:
        what: the object, as the beginning of a sentence: "this session".
    """

    __slots__ = ("_root", "_thread", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._root = current_root_task()
        self._thread = threading.current_thread().name

    @property
    def is_over(self) -> bool:
        """Whether that run has ended."""
        root = self._root
        return root is not None and inspect.getcoroutinestate(root.coro) == inspect.CORO_CLOSED

    def check(self) -> None:
        """Raise RuntimeError in any other run, and outside of any run. It takes 0.2 us a call."""
        try:
            is_here = current_root_task() is self._root
        except RuntimeError:
            is_here = False
        if not is_here:
            if self.is_over:
                raise RuntimeError(
                    f"{self._what} ended with the Trio run that opened it, which is over:"
                    " nothing was done"
                )
            raise RuntimeError(
                f"{self._what} belongs to the Trio run in thread {self._thread!r} that opened it, "
                "and was used outside of "
                f"that run, in thread {threading.current_thread().name!r}: nothing was done; "
                "from another thread, "
                "use trio.from_thread.run()"
            )


_of_this_run = PerRun("trio_rpc owner", lambda: Owner("this session"))


def owner_of_sessions() -> Owner:
    """Return the owner that all sessions of this Trio run share."""
    return _of_this_run.get()
