"""Methods that would send a function or a stream where none can be sent are refused.

They are refused at registration.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, NewType, Protocol, TypeVar

import pytest
import trio

from trio_rpc import duplex, method, notification, stream
from trio_rpc.services.tables import build_table

Function = Callable[[int], Awaitable[int]]
Named = NewType("Named", Function)
Bound = TypeVar("Bound", bound=AsyncIterator[int])


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
    tuple[int, Function],
    Annotated[Function, "a function"],
    list[Named],
    Bound,
    Function | AsyncIterator[int],
]
DATA = [int | Function, Any, object, list[Any], list[int | Function], None]


@pytest.mark.parametrize("annotation", LENT)
def test_a_notification_with_a_function_or_a_stream_as_a_parameter_is_refused(annotation):
    with pytest.raises(TypeError, match=r"ask: parameter 'x' is a function or a stream.*@method"):
        build_table(_service(notification, annotation, "x"))
    build_table(_service(method, annotation, "x"))


@pytest.mark.parametrize("annotation", LENT)
def test_a_method_whose_result_is_a_function_or_a_stream_is_refused(annotation):
    with pytest.raises(TypeError, match=r"ask: its result is a function or a stream.*@stream"):
        build_table(_service(method, annotation, "return"))


def _opened(mark, annotation):
    async def items(self):
        yield

    async def exchange(self, channel): ...

    if mark is stream:
        ask = items
        ask.__annotations__["return"] = AsyncIterator[annotation]
    else:
        ask = exchange
        ask.__annotations__["channel"] = trio.abc.Channel[annotation]
    return type("Never", (), {"ask": mark(ask)})()


def _started(mark, annotation):
    async def ask(self, *channel, task_status=trio.TASK_STATUS_IGNORED): ...

    ask.__annotations__["task_status"] = trio.TaskStatus[annotation]
    return type("Never", (), {"ask": mark(ask)})()


@pytest.mark.parametrize("mark", [stream, duplex])
@pytest.mark.parametrize("annotation", LENT)
def test_a_stream_whose_items_are_functions_or_streams_is_refused(annotation, mark):
    with pytest.raises(TypeError, match=r": its items are functions or streams.*a callback"):
        build_table(_opened(mark, annotation))


@pytest.mark.parametrize("annotation", LENT)
def test_a_started_value_that_is_a_function_or_a_stream_is_refused(annotation):
    with pytest.raises(
        TypeError, match=r"ask: its started value is a function or a stream.*a callback"
    ):
        build_table(_started(method, annotation))


@pytest.mark.parametrize("annotation", LENT)
@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (lambda one: AsyncIterator[one], "a stream of functions or streams"),
        (lambda one: list[AsyncIterator[one]] | None, "a stream of functions or streams"),
        (
            lambda one: Callable[[AsyncIterator[one]], Awaitable[None]],
            "a stream of functions or streams",
        ),
        (
            lambda one: Callable[[], Awaitable[one]],
            "a function that returns functions or streams",
        ),
        (
            lambda one: dict[str, Callable[[], one]],
            "a function that returns functions or streams",
        ),
        (
            lambda one: Callable[[Callable[[], one]], Awaitable[None]],
            "a function that returns functions or streams",
        ),
    ],
    ids=["stream", "streams", "stream given to a function", "function", "functions", "given one"],
)
def test_an_argument_that_gives_functions_or_streams_is_refused(annotation, parameter, text):
    with pytest.raises(TypeError, match=f"ask: parameter 'x' takes {text}, but only an arg"):
        build_table(_service(method, parameter(annotation), "x"))


def test_an_argument_may_be_a_function_with_functions_and_streams_as_parameters():
    for annotation in LENT:
        build_table(_service(method, Callable[[annotation], Awaitable[int]], "x"))


@pytest.mark.parametrize("annotation", DATA)
def test_an_item_or_started_value_may_be_declared_as_data_or_a_function(annotation):
    build_table(_opened(stream, annotation))
    build_table(_opened(duplex, annotation))
    build_table(_started(method, annotation))
    build_table(_service(method, AsyncIterator[annotation], "x"))
    build_table(_service(method, Callable[[], Awaitable[annotation]], "x"))


@pytest.mark.parametrize("annotation", DATA)
def test_parameters_and_results_may_be_declared_as_data_or_a_function(annotation):
    build_table(_service(notification, annotation, "x"))
    build_table(_service(method, annotation, "return"))


class PlainlyCalled(Protocol):
    def __call__(self, number: int) -> None: ...


class AwaitedIfAsync(Protocol):
    async def __call__(self, number: int) -> None: ...


PLAIN = [
    (Callable[[int], None], "None"),
    (Callable[..., bool], "bool"),
    (Callable[[int], None] | None, "None"),
    (list[Callable[[int], bool | str]], "Union[bool, str]"),
    (Callable[[int], None] | Callable[[int], Awaitable[None]], "None"),
    (Callable[[Callable[[], str]], Awaitable[None]], "str"),
    (Annotated[Callable[[int], list[int]], "numbers"], "list[int]"),
    (PlainlyCalled, "None"),
]


@pytest.mark.parametrize(("annotation", "result"), PLAIN)
@pytest.mark.parametrize("mark", [method, duplex])
def test_a_callback_whose_result_cannot_be_awaited_is_refused(annotation, result, mark):
    async def ask(self, channel, x=None): ...

    ask.__annotations__["x"] = annotation
    service = type("Never", (), {"ask": mark(ask)})()
    with pytest.raises(TypeError, match="ask: parameter 'x' takes a function that ret") as caught:
        build_table(service)
    text = str(caught.value)
    assert f"returns {result}, but it runs at the other end" in text
    assert text.endswith(f"annotate its result as Awaitable[{result}]")


@pytest.mark.parametrize(
    "annotation",
    [
        Callable,
        Callable[..., Any],
        Callable[[int], object],
        Callable[[int], Awaitable[None] | None],
        Callable[[int], asyncio.Future[int]],
        AwaitedIfAsync,
    ],
)
def test_a_callback_whose_result_may_be_awaited_is_accepted(annotation):
    build_table(_service(method, annotation, "x"))
