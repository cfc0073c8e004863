"""Aliases in the annotations of functions, streams and results mean the same as their values."""

from __future__ import annotations

import sys
import textwrap
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NewType, TypeVar, Unpack

import pytest
import trio
from typing_extensions import TypeAliasType, TypedDict
from typing_extensions import TypeVar as ExtendedTypeVar

import trio_rpc
from trio_rpc import duplex, method, stream
from trio_rpc.services.tables import build_table

T = TypeVar("T")

USED: dict[str, Any] = {
    "Callable": Callable,
    "Awaitable": Awaitable,
    "AsyncIterator": AsyncIterator,
    "T": T,
    "trio": trio,
    "TypeAliasType": TypeAliasType,
    "TypedDict": TypedDict,
    "NewType": NewType,
    "TypeVar": TypeVar,
    "Unpack": Unpack,
}
SIMPLE = """
    Sink = Callable[[T], Awaitable[None]]
    Source = Callable[[], Awaitable[T]]
    Later = Awaitable[T]
    Items = AsyncIterator[T]
    Pipe = trio.abc.Channel[T]
    Status = trio.TaskStatus[T]
    Sinks = dict[str, Sink[T]]
    """
STATEMENTS = """
    type Sink[T] = Callable[[T], Awaitable[None]]
    type Source[T] = Callable[[], Later[T]]
    type Later[T] = Awaitable[T]
    type Items[T] = AsyncIterator[T]
    type Pipe[T] = trio.abc.Channel[T]
    type Status[T] = trio.TaskStatus[T]
    type Sinks[T] = dict[str, Sink[T]]
    type Spread[*Ts] = Callable[[*Ts], Awaitable[None]]
    type Behind[T, *Ts] = Callable[[*Ts, T], Awaitable[None]]
    type Given[**P] = Callable[P, Awaitable[None]]
    type Twice[T] = Sink[T]
    type Never = list[Never]
    """

QUOTED = """
    Sink = TypeAliasType("Sink", "Callable[[T], Awaitable[None]]", type_params=(T,))
    Source = TypeAliasType("Source", "Callable[[], Later[T]]", type_params=(T,))
    Later = TypeAliasType("Later", Awaitable["T"], type_params=(T,))
    Items = TypeAliasType("Items", "AsyncIterator[T]", type_params=(T,))
    Pipe = TypeAliasType("Pipe", "trio.abc.Channel[T]", type_params=(T,))
    Status = TypeAliasType("Status", "trio.TaskStatus[T]", type_params=(T,))
    Sinks = TypeAliasType("Sinks", dict[str, "Sink[T]"], type_params=(T,))
    """

needs_statements = pytest.mark.skipif(sys.version_info < (3, 12), reason="no type statement")


def _made(text: str) -> dict[str, Any]:
    names = {**USED, "__name__": f"made_{len(text)}"}
    sys.modules[names["__name__"]] = module = types.ModuleType(names["__name__"])
    vars(module).update(names)
    names = vars(module)
    exec(textwrap.dedent(text), names)  # noqa: S102 - the statement is new in Python 3.12
    return names


@pytest.fixture(params=[SIMPLE, QUOTED, pytest.param(STATEMENTS, marks=needs_statements)])
def names(request):
    return _made(request.param)


def _service(names: dict[str, Any], **annotations: str) -> Any:
    async def ask(self: Any, x: Any = None) -> Any: ...

    ask.__annotations__ = {
        name.replace("result", "return"): eval(text, names)  # noqa: S307
        for name, text in annotations.items()
    }
    return ask


def _desk(names: dict[str, Any], sink: str, *args: Any) -> Any:
    class Desk:
        @method
        async def tell(self, x):
            await x(*args)

    Desk.tell.__annotations__["x"] = eval(sink, names)  # noqa: S307
    return Desk


async def _received(session_pair, desk: Any) -> list[Any]:
    received: list[Any] = []
    async with session_pair(desk(), None) as (_, session):
        await session.proxy("", desk).tell(lambda *given: received.append(given))
    return received


@pytest.mark.parametrize("sink", ["Sink[set[int]]", "Sinks[set[int]]"])
async def test_the_arguments_of_a_callback_are_converted_to_those_of_its_alias(
    session_pair, names, sink
):
    class Desk:
        @method
        async def tell(self, x):
            await (x["a"] if isinstance(x, dict) else x)([1, 2])

    Desk.tell.__annotations__["x"] = eval(sink, names)  # noqa: S307
    received: list[Any] = []
    async with session_pair(Desk(), None) as (_, session):
        given = {"a": received.append} if "Sinks" in sink else received.append
        await session.proxy("", Desk).tell(given)
    assert received == [{1, 2}]


async def test_an_argument_that_does_not_fit_the_alias_is_an_error(session_pair, names):
    with pytest.raises(trio_rpc.RemoteError, match="Expected `int`, got `str`"):
        await _received(session_pair, _desk(names, "Sink[int]", "one"))


@needs_statements
@pytest.mark.parametrize(
    ("sink", "args", "received"),
    [
        ("Twice[set[int]]", ([1],), ({1},)),
        ("Spread[set[int], list[set[int]]]", ([1], [[2]]), ({1}, [{2}])),
        ("Spread[*tuple[set[int], int]]", ([1], 2), ({1}, 2)),
        ("Spread[Unpack[tuple[set[int], int]]]", ([1], 2), ({1}, 2)),
        ("Spread[*tuple[set[int], ...]]", ([1], [2]), ({1}, {2})),
        ("Spread[int, *tuple[set[int], ...]]", (1, [2]), (1, {2})),
        ("Behind[*tuple[set[int], int, str]]", (1, "a", [2]), (1, "a", {2})),
        ("Behind[set[int], int, str]", (1, "a", [2]), (1, "a", {2})),
        ("Given[[set[int], int]]", ([1], 2), ({1}, 2)),
        ("Given[...]", ([1], 2), ([1], 2)),
    ],
)
async def test_an_alias_may_have_several_parameters(session_pair, sink, args, received):
    assert await _received(session_pair, _desk(_made(STATEMENTS), sink, *args)) == [received]


async def test_the_result_of_a_callback_is_converted_as_its_alias_says(session_pair, names):
    class Desk:
        @method
        async def ask(self, x):
            return await x() == {1}

    Desk.ask.__annotations__ = {"x": eval("Source[set[int]]", names), "return": bool}  # noqa: S307
    async with session_pair(Desk(), None) as (_, session):
        assert await session.proxy("", Desk).ask(lambda: [1])
        with pytest.raises(trio_rpc.RemoteError, match="Expected `int`, got `str`"):
            await session.proxy("", Desk).ask(lambda: ["a"])


async def test_results_items_channels_and_started_values_may_be_aliases(session_pair, names):
    class Desk:
        @method
        def result(self):
            async def later():
                return [1]

            return later()

        @stream
        async def items(self):
            yield [1]

        @duplex
        async def echo(self, channel):
            await channel.send(await channel.receive() == {1} and [1])

        @method
        async def start(self, *, task_status=trio.TASK_STATUS_IGNORED):
            task_status.started([1])

        @method
        async def pulled(self, items):
            return [item async for item in items] == [{1}]

    def annotate(name, parameter, text):
        vars(Desk)[name].__annotations__[parameter] = eval(text, names)  # noqa: S307

    annotate("result", "return", "Later[set[int]]")
    annotate("items", "return", "Items[set[int]]")
    annotate("echo", "channel", "Pipe[set[int]]")
    annotate("start", "task_status", "Status[set[int]]")
    annotate("pulled", "items", "Items[set[int]]")

    async def items():
        yield [1]

    async with session_pair(Desk(), None) as (_, session):
        proxy = session.proxy("", Desk)
        assert await proxy.result() == {1}
        async with proxy.items() as given:
            assert await given.receive() == {1}
        async with proxy.echo() as channel:
            await channel.send([1])
            assert await channel.receive() == {1}
        async with trio.open_nursery() as nursery:
            assert await nursery.start(proxy.start) == {1}
        assert await proxy.pulled(items())


@pytest.mark.parametrize(
    "annotations",
    [
        {"result": "Sink[int]"},
        {"result": "Sinks[int]"},
        {"result": "Items[int]"},
        {"result": "Later[Sink[int]]"},
        {"x": "Items[Sink[int]]"},
        {"x": "Source[Items[int]]"},
    ],
)
async def test_an_alias_of_a_type_that_can_never_be_sent_is_refused(names, annotations):
    with pytest.raises(TypeError, match=r"ask: .* function"):
        build_table(type("Desk", (), {"ask": method(_service(names, **annotations))})())


@needs_statements
async def test_an_alias_of_itself_is_resolved_once():
    service = type("Desk", (), {"ask": method(_service(_made(STATEMENTS), x="Never"))})()
    assert set(build_table(service)) == {"ask"}


class Point(TypedDict):
    """A class with the same name as one in the module of the aliases, where the name means the
    latter."""

    name: str


ELSEWHERE = """
    class Point(TypedDict):
        x: set[int]

    Alias = TypeAliasType("Alias", "Point")
    Listed = TypeAliasType("Listed", "list[T | Point]", type_params=(T,))
    Inner = TypeAliasType("Inner", dict[str, "Point"])
    Tree = TypeAliasType("Tree", "dict[str, Tree[T]] | T | None", type_params=(T,))
    New = NewType("New", "Point")
    Bound = TypeVar("Bound", bound="Point")
    One = TypeVar("One", "Point", None)
    """


@pytest.mark.parametrize(
    ("annotation", "sent", "received"),
    [
        ("Alias", {"x": [1]}, {"x": {1}}),
        ("Listed[int]", [2, {"x": [1]}], [2, {"x": {1}}]),
        ("Inner", {"a": {"x": [1]}}, {"a": {"x": {1}}}),
        ("Tree[set[int]]", {"a": {"b": [1]}, "c": None}, {"a": {"b": {1}}, "c": None}),
        ("New", {"x": [1]}, {"x": {1}}),
        ("list[Bound]", [{"x": [1]}], [{"x": {1}}]),
        ("One", {"x": [1]}, {"x": {1}}),
    ],
)
async def test_a_name_in_an_alias_is_that_of_the_module_where_the_alias_is_defined(
    session_pair, annotation, sent, received
):
    names = _made(ELSEWHERE)
    got: list[Any] = []

    class Desk:
        @method
        async def give(self, x):
            got.append(x)
            return sent

    meant = eval(annotation, names)  # noqa: S307
    Desk.give.__annotations__ = {"x": meant, "return": meant}
    async with session_pair(Desk(), None) as (_, session):
        assert await session.proxy("", Desk).give(sent) == received
    assert got == [received]


async def test_an_unknown_name_in_an_alias_is_reported_at_registration():
    class Local(TypedDict):
        x: set[int]

    Locals = TypeAliasType("Locals", "dict[T, Local]", type_params=(T,))  # noqa: N806 - a type

    class Desk:
        @method
        async def get(self, x: Locals[str]) -> None: ...

    with pytest.raises(TypeError, match=r"get: .* parameter 'x' .* 'Local' is not defined"):
        build_table(Desk())


async def test_a_type_variable_with_a_default_stands_for_it(session_pair):
    Set = ExtendedTypeVar("Set", default=set[int])

    class Desk:
        @method
        async def get(self, x: Set) -> list[Set]:
            assert x == {1}
            return [[2]]

    async with session_pair(Desk(), None) as (_, session):
        assert await session.proxy("", Desk).get([1]) == [{2}]


ENDLESS = """
    Itself = TypeAliasType("Itself", "Itself")
    Grows = TypeAliasType("Grows", "list[Grows[list[T]]] | T", type_params=(T,))
    """


@pytest.mark.parametrize("annotation", ["Itself", "Grows[int]"])
@pytest.mark.parametrize("where", ["x", "result"])
async def test_an_alias_without_an_end_is_refused_with_an_error_of_this_library(annotation, where):
    service = _service(_made(ENDLESS), **{where: annotation})
    with pytest.raises(TypeError, match=r"ask: .* (without end|never ends)"):
        build_table(type("Desk", (), {"ask": method(service)})())
