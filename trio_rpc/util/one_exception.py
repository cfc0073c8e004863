"""One exception where a nursery of ours would raise a group (law 16)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import trio

__all__ = ["one_exception"]


@contextlib.contextmanager
def one_exception() -> Iterator[list[BaseException]]:
    """Raise one exception where a nursery would raise a group of ours (law 16).

    The block's own exception (put into the list) is what its user expects. Only what no handler
    may raise without ending the program goes before it.
    """
    body: list[BaseException] = []
    try:
        yield body
    except BaseException as exc:  # noqa: BLE001 - one of its parts is raised again
        failure = _choose(exc, body)
    else:
        return
    context = failure.__context__
    try:
        raise failure
    finally:
        # Raising it here has put the group in the place of what it was raised in.
        failure.__context__ = context
        del failure, context  # its traceback holds this frame


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
