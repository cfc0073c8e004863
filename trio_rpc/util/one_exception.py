"""Raising one exception where one of our nurseries would raise a group (law 16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NoReturn

import trio

from trio_rpc.util.raised import add_note, repr_of, set_context

__all__ = ["one_exception", "raise_alone", "raise_one"]


def one_exception() -> AbstractContextManager[list[BaseException]]:
    """Raise one exception where one of our nurseries would raise a group (law 16).

    The user expects the block's own exception, which is put into the list. Two kinds take
    precedence: an exception that ends the program, and one that is its cause. A note names each
    exception that is not raised.
    """
    return _OneException()


class _OneException:
    # A class, since frames of contextlib would form a cycle: they refer to the group, which refers
    # to the exception, whose traceback refers to the frames.

    __slots__ = ("_body",)

    def __init__(self) -> None:
        self._body: list[BaseException] = []

    def __enter__(self) -> list[BaseException]:
        return self._body

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self,
        _kind: type[BaseException] | None,
        exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            return
        try:
            raise_one(exc, self._body)
        finally:
            self._body.clear()
            del exc, _traceback  # they hold this frame


def raise_one(exc: BaseException, body: Sequence[BaseException] = ()) -> NoReturn:
    """Raise the one exception of a nursery's group, as :func:`one_exception` does.

    Args:
        exc: the exception that the nursery has raised.
        body: the exception of the nursery's own block, if it has raised one.
    """
    failure = _choose(exc, [*body])
    try:
        raise_alone(failure)
    finally:
        del failure, exc, body  # they hold this frame


def raise_alone(exc: BaseException) -> NoReturn:
    """Raise an exception of a group without the group as its context."""
    context = exc.__context__
    try:
        raise exc
    finally:
        set_context(exc, context)
        del exc, context  # its traceback holds this frame


def _choose(exc: BaseException, body: list[BaseException]) -> BaseException:
    # Trio may copy a group while it splits it, but never the exceptions inside.
    mine = [leaf for each in body for leaf in _leaves(each)]
    known = {id(leaf) for leaf in mine}
    leaves = list(_leaves(exc))
    others = [leaf for leaf in leaves if id(leaf) not in known and not _is_cancelled(leaf)]
    fatal = [each for each in body + others if _ends_program(each)]
    if fatal:
        return fatal[0]
    causes = {id(leaf.__cause__) for leaf in mine}
    own = [each for each in body if not all(map(_is_cancelled, _leaves(each)))]
    if own and not any(id(each) in causes for each in others):
        for each in others:
            add_note(own[0], f"meanwhile, in the background: {repr_of(each)}")
        return own[0]
    return next(iter(others + body + leaves))


def _ends_program(exc: BaseException) -> bool:
    return any(not isinstance(leaf, Exception) and not _is_cancelled(leaf) for leaf in _leaves(exc))


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            yield from _leaves(each)
    else:
        yield exc


def _is_cancelled(exc: BaseException) -> bool:
    return isinstance(exc, trio.Cancelled)
