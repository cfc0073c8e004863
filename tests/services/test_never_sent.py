"""Methods that would have to send a function or a stream where none can travel are refused when they are registered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NewType

import pytest
import trio

from trio_rpc import method, notification
from trio_rpc.services.tables import build_table

Function = Callable[[int], Awaitable[int]]
Named = NewType("Named", Function)


def _service(mark, annotation, where):
    async def ask(self, x=None): ...

    ask.__annotations__[where] = annotation
    return type("Never", (), {"ask": mark(ask)})()


LENT = [
    Function,
    Function | None,
    Named,
    Callable,
    AsyncIterator[int],
    trio.abc.ReceiveChannel[int],
    list[Function],
    dict[str, AsyncIterator[int]] | None,
]


@pytest.mark.parametrize("annotation", LENT)
def test_a_notification_that_would_have_to_carry_a_function_or_a_stream_is_refused(annotation):
    with pytest.raises(TypeError, match=r"ask: parameter 'x' is a function or a stream.*@method"):
        build_table(_service(notification, annotation, "x"))
    build_table(_service(method, annotation, "x"))


@pytest.mark.parametrize("annotation", LENT)
def test_a_method_whose_result_would_have_to_be_a_function_or_a_stream_is_refused(annotation):
    with pytest.raises(TypeError, match=r"ask: its result is a function or a stream.*@stream"):
        build_table(_service(method, annotation, "return"))


@pytest.mark.parametrize(
    "annotation", [int | Function, Any, object, list[Any], list[int | Function], None]
)
def test_what_may_be_data_as_well_is_not_refused(annotation):
    build_table(_service(notification, annotation, "x"))
    build_table(_service(method, annotation, "return"))
