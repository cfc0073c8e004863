"""One exception where a nursery of ours would raise a group (law 16)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NoReturn

import trio

__all__ = ["one_exception", "raise_alone"]


def one_exception() -> AbstractContextManager[list[BaseException]]:
    """Raise one exception where a nursery would raise a group of ours (law 16).

    The block's own exception (put into the list) is what its user expects. Only what no handler
    may raise without ending the program goes before it.
    """
    return _OneException()


class _OneException:
    # A class, since the frames of contextlib would keep the group, which keeps the exception, which keeps them.

    __slots__ = ("_body",)

    def __init__(self) -> None:
        self._body: list[BaseException] = []

    def __enter__(self) -> list[BaseException]:
        return self._body

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            return
        failure = _choose(exc, self._body)
        try:
            raise_alone(failure)
        finally:
            self._body.clear()
            del failure, exc, _traceback  # which hold this frame


def raise_alone(exc: BaseException) -> NoReturn:
    """Raise an exception out of the group that it is in, which would otherwise become its context."""
    context = exc.__context__
    try:
        raise exc
    finally:
        exc.__context__ = context
        del exc, context  # its traceback holds this frame


def _choose(exc: BaseException, body: list[BaseException]) -> BaseException:
    # Trio hands on copies of the groups that it has looked into, but never of what is in them.
    known = {id(leaf) for each in body for leaf in _leaves(each)}
    leaves = list(_leaves(exc))
    fatal = [leaf for leaf in leaves if id(leaf) not in known and not _is_cancelled(leaf)]
    fatal.sort(key=lambda leaf: isinstance(leaf, Exception))  # what ends the program comes first
    return next(iter(fatal + body + leaves))


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            yield from _leaves(each)
    else:
        yield exc


def _is_cancelled(exc: BaseException) -> bool:
    return isinstance(exc, trio.Cancelled)
