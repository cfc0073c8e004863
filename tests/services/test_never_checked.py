"""Annotations that no value could ever be checked against are refused at registration.

The text names the method and the place, and says what to write instead.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, ClassVar, Final, Generic, Optional, Protocol, TypeGuard

import pytest
import trio

from trio_rpc import duplex, method, stream
from trio_rpc.gateway import Gateway
from trio_rpc.services.proxies import Proxy
from trio_rpc.services.tables import build_table

NO_TYPES = [
    ((int, str), r"is a tuple of types: write tuple\[\.\.\.\]"),
    ("(int, str)", r"is a tuple of types: write tuple\[\.\.\.\]"),
    ([int], r"is a list of types: write list"),
    ({"a": int}, r"is a dict: write dict\[\.\.\.\], or a TypedDict"),
    (any, "any is a function: write Any"),
    ("any", "any is a function: write Any"),
    (print, r"print is a function: write Callable"),
    (5, r"5 is a value: write Literal\[5\]"),
    (trio, "trio is a module: write a class in it"),
    (TypeGuard[int], "TypeGuard has a meaning only for type checkers: write bool"),
    (ClassVar, "ClassVar is not a type of values"),
    (Final, "Final is not a type of values"),
    (Optional, "Optional is not a type of values"),
    (Protocol, "Protocol is not a type of values"),
    (Generic, "Generic is not a type of values"),
    (..., "Ellipsis is not a type of values"),
    ("int |", "the annotation 'int |'"),
    (trio.Event, "trio.Event cannot be sent"),
    (trio.MemorySendChannel[int], r"write Callable\[.*its send method, or .*@duplex"),
]


def _result(annotation):
    async def ask(self): ...

    ask.__annotations__["return"] = annotation
    return method(ask)


def _argument(annotation):
    async def ask(self, x): ...

    ask.__annotations__["x"] = annotation
    return method(ask)


def _started(annotation):
    async def ask(self, *, task_status=trio.TASK_STATUS_IGNORED): ...

    ask.__annotations__["task_status"] = typing.types.GenericAlias(trio.TaskStatus, (annotation,))
    return method(ask)


def _items(annotation):
    async def ask(self):
        yield

    ask.__annotations__["return"] = typing.types.GenericAlias(AsyncIterator, (annotation,))
    return stream(ask)


def _exchanged(annotation):
    async def ask(self, channel): ...

    ask.__annotations__["channel"] = typing.types.GenericAlias(trio.abc.Channel, (annotation,))
    return duplex(ask)


def _called_with(annotation):
    async def ask(self, x): ...

    ask.__annotations__["x"] = Callable[[annotation], Awaitable[None]]
    return method(ask)


def _returned_by_a_callback(annotation):
    async def ask(self, x): ...

    ask.__annotations__["x"] = Callable[[], Awaitable[annotation]]
    return method(ask)


def _field(annotation):
    cls = dataclasses.make_dataclass("Order", [("x", annotation)])
    return _argument(cls)


PLACES = [
    _argument,
    _result,
    _started,
    _items,
    _exchanged,
    _called_with,
    _returned_by_a_callback,
    _field,
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("annotation", "text"), NO_TYPES)
def test_a_value_that_is_not_a_type_is_refused_at_registration(annotation, text, place):
    if place is _field and annotation is ClassVar:
        pytest.skip("a class variable is not a field")
    if place is _called_with and isinstance(annotation, (tuple, list, type(...))):
        pytest.skip("Callable reads it as several arguments, or as any")
    if place is _returned_by_a_callback and isinstance(annotation, tuple):
        pytest.skip("Awaitable reads it as several arguments")
    if place is _field and annotation is Final:
        pytest.skip("the field's default has its type")
    if isinstance(annotation, str) and place not in (_argument, _result):
        pytest.skip("text is the same there once it is resolved")
    ask = place(annotation)
    with pytest.raises(TypeError, match=rf"ask: .*{text}"):
        build_table(type("Odd", (), {"ask": ask})())


def test_a_gateway_refuses_them_with_the_same_text():
    with pytest.raises(TypeError, match=r"ask: the annotation of its result .* write Any"):
        Gateway(type("Odd", (), {"ask": _result(any)})())


@pytest.mark.parametrize("annotation", ["Missing", "trio.missing"])
def test_a_result_that_only_a_type_checker_can_resolve_is_refused_at_the_proxy_only(annotation):
    cls = type("Odd", (), {"ask": _result(annotation)})
    assert build_table(cls())
    with pytest.raises(TypeError, match=r"issing' .*cannot be resolved at run time"):
        _ = Proxy(None, "", cls).ask


@pytest.mark.parametrize("annotation", [int, list[int], Iterator[int], Iterable[int]])
def test_a_stream_without_the_annotation_of_a_stream_is_refused_at_registration(annotation):
    async def ask(self):
        yield

    ask.__annotations__["return"] = annotation
    with pytest.raises(TypeError, match=r"ask: .* of a stream: write AsyncIterator\[\.\.\.\]"):
        build_table(type("Odd", (), {"ask": stream(ask)})())


SENDING = [trio.abc.SendChannel, trio.abc.Channel]


@pytest.mark.parametrize("cls", SENDING)
@pytest.mark.parametrize("within", [lambda one: one, lambda one: list[one], lambda one: one | None])
def test_a_parameter_to_send_on_is_refused_at_registration(cls, within):
    for annotation in (cls, cls[int]):
        ask = _argument(within(annotation))
        with pytest.raises(
            TypeError, match=r"ask: parameter 'x' takes a .*send method, or .*@duplex"
        ):
            build_table(type("Odd", (), {"ask": ask})())


@pytest.mark.parametrize("annotation", [trio.abc.SendChannel[int], trio.abc.SendChannel])
def test_the_handler_of_a_duplex_may_only_send(annotation):
    async def ask(self, channel): ...

    ask.__annotations__["channel"] = annotation
    assert build_table(type("Odd", (), {"ask": duplex(ask)})())


@pytest.mark.parametrize("annotation", [trio.MemoryReceiveChannel[int], int, Any])
def test_the_channel_of_a_duplex_is_annotated_as_one(annotation):
    async def ask(self, channel): ...

    ask.__annotations__["channel"] = annotation
    service = type("Odd", (), {"ask": duplex(ask)})()
    if annotation is Any:
        assert build_table(service)
        return
    with pytest.raises(TypeError, match=r"'channel' is not .*: write trio.abc.Channel\[\.\.\.\]"):
        build_table(service)


BARE = ["List", "Dict", "Tuple", "Callable", "AsyncIterator", "AsyncGenerator", "DefaultDict"]


@pytest.mark.parametrize("name", BARE)
def test_a_bare_type_of_typing_accepts_any_contents(name):
    ask = _argument(getattr(typing, name))
    assert build_table(type("Odd", (), {"ask": ask})())
    ask = _argument(typing.Dict[str, getattr(typing, name)])  # noqa: UP006 - as it is written
    assert build_table(type("Odd", (), {"ask": ask})())


def test_a_field_that_is_only_final_may_be_anything():
    @dataclasses.dataclass
    class Order:
        x: Final = 5

    ask = _argument(Order)
    signature = build_table(type("Odd", (), {"ask": ask})())["ask"].signature
    assert signature.bind([{"x": "six"}]) == ((Order("six"),), {})
