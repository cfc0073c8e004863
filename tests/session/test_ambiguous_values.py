"""Data that is also callable or an async iterable.

It is sent as data where its type is annotated and where references are not possible.
"""

from __future__ import annotations

import collections
import enum
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
import trio

import trio_rpc
from trio_rpc import TypeRegistry, duplex, method, notification, stream

T = TypeVar("T")


class Ambiguous:
    """An object that could be used as a stream or as a function."""

    async def __aiter__(self):
        yield 7

    async def __call__(self) -> int:
        return 8


@dataclass
class Page(Ambiguous):
    rows: int = 0


@dataclass
class Longer(Page):
    more: int = 0


@dataclass
class Node(Ambiguous):
    name: str
    children: list[Node] = field(default_factory=list)


@dataclass
class Odd(Ambiguous):
    """One of two classes that refer to each other."""

    even: Even | None = None


@dataclass
class Even(Ambiguous):
    odd: Odd | None = None


@dataclass
class Box(Ambiguous, Generic[T]):
    x: T


@dataclass
class Holder:
    page: Page


@dataclass
class Closable(Ambiguous):
    x: int

    async def aclose(self) -> None:
        raise AssertionError("it is sent as data")


@attrs.define
class Attrs(Ambiguous):
    x: int


class Struct(msgspec.Struct):
    x: int

    __aiter__ = Ambiguous.__aiter__
    __call__ = Ambiguous.__call__


class Row(NamedTuple):
    x: int

    async def __aiter__(self):
        yield self.x


class Model(Ambiguous, pydantic.BaseModel):
    x: int
    inner: Model | None = None


@pydantic.dataclasses.dataclass
class Checked(Ambiguous):
    x: int


class Color(Ambiguous, enum.Enum):
    RED = "red"


class Number(Ambiguous, int, enum.Enum):
    ONE = 1


class Rows(list, Ambiguous):  # type: ignore[type-arg]
    pass


class Table(dict, Ambiguous):  # type: ignore[type-arg]
    pass


class Text(str, Ambiguous):  # type: ignore[misc]
    __slots__ = ()


PAGE = Page(3)
VALUES: dict[str, tuple[Any, Any]] = {
    "dataclass": (Page, PAGE),
    "tree": (Node, Node("a", [Node("b"), Node("c", [Node("d")])])),
    "circle of classes": (Odd, Odd(Even(Odd(Even())))),
    "generic": (Box[int], Box(1)),
    "generic of another": (Box[Page], Box(PAGE)),
    "field": (Holder, Holder(PAGE)),
    "closable": (Closable, Closable(1)),
    "attrs": (Attrs, Attrs(1)),
    "Struct": (Struct, Struct(1)),
    "NamedTuple": (Row, Row(1)),
    "Pydantic": (Model, Model(x=1, inner=Model(x=2))),
    "Pydantic dataclass": (Checked, Checked(1)),
    "enum": (Color, Color.RED),
    "enum of int": (Number, Number.ONE),
    "list's subclass": (Rows, Rows([1, 2])),
    "dict's subclass": (Table, Table(a=1)),
    "text's subclass": (Text, Text("a")),
    "list": (list[Page], [PAGE]),
    "dict": (dict[str, Page], {"a": PAGE}),
    "tuple": (tuple[Page, ...], (PAGE,)),
    "optional": (Page | None, PAGE),
    "union": (Page | Model | int, Model(x=1)),
    "Sequence": (Sequence[Page], [PAGE]),
    "Mapping": (Mapping[str, Page], {"a": PAGE}),
    "deque": (collections.deque[Page], collections.deque([PAGE])),
    "OrderedDict": (collections.OrderedDict[str, Page], collections.OrderedDict(a=PAGE)),
}


def _desk(wanted: Any, value: Any) -> Any:
    """Make a service that sends and receives ``value`` in every way, annotated as ``wanted``."""

    class Desk:
        def __init__(self) -> None:
            self.notes: list[Any] = []

        @method
        async def result(self) -> wanted:
            return value

        @method
        def plain(self) -> wanted:
            return value

        @stream
        async def items(self) -> AsyncGenerator[wanted, None]:
            yield value

        @method
        async def start(
            self, *, task_status: trio.TaskStatus[wanted] = trio.TASK_STATUS_IGNORED
        ) -> None:
            task_status.started(value)

        @method
        async def argument(self, x: wanted) -> bool:
            return type(x) is type(value) and x == value

        @method
        async def asked(self, ask: Callable[[], Awaitable[wanted]]) -> bool:
            return await ask() == value

        @method
        async def given(self, tell: Callable[[wanted], Awaitable[bool]]) -> bool:
            return await tell(value)

        @method
        async def pulled(self, items: AsyncIterator[wanted]) -> bool:
            return [item async for item in items] == [value]

        @duplex
        async def echo(self, channel: trio.abc.Channel[wanted]) -> None:
            await channel.send(await channel.receive())

        @notification
        async def note(self, x: wanted) -> None:
            self.notes.append(x)

    annotated = vars(Desk)
    for one in annotated.values():
        hints = getattr(one, "__annotations__", {})
        for name, hint in hints.items():
            if isinstance(hint, str) and "wanted" in hint:
                hints[name] = eval(hint, {**globals(), "wanted": wanted})  # noqa: S307
    return Desk


@pytest.mark.parametrize("what", VALUES)
async def test_an_ambiguous_object_is_data_where_its_type_is_annotated(session_pair, what, no_time):
    wanted, value = VALUES[what]
    cls = _desk(wanted, value)
    desk = cls()

    async def items() -> AsyncGenerator[Any, None]:
        yield value

    async def ask() -> Any:
        return value

    async with session_pair(desk, None) as (_, session):
        proxy = session.proxy("", cls)
        for got in (await proxy.result(), await proxy.plain()):
            assert type(got) is type(value)
            assert got == value
        async with proxy.items() as given:
            assert [item async for item in given] == [value]
        async with trio.open_nursery() as nursery:
            assert await nursery.start(proxy.start) == value
        assert await proxy.argument(value)
        assert await proxy.asked(ask)
        assert await proxy.asked(lambda: value)
        assert await proxy.given(lambda got: got == value)
        assert await proxy.pulled(items())
        async with proxy.echo() as channel:
            await channel.send(value)
            assert await channel.receive() == value
        await proxy.note(value)
        await session.ping()
        assert desk.notes == [value]


class Untyped:
    def __init__(self) -> None:
        self.notes: list[Any] = []

    @method
    async def result(self):
        return PAGE

    @stream
    async def items(self):
        yield [PAGE]

    @method
    async def start(self, task_status=trio.TASK_STATUS_IGNORED):
        task_status.started({"a": PAGE})

    @method
    async def asked(self, ask):
        return await ask()

    @notification
    async def note(self, x):
        self.notes.append(x)

    @method
    async def channel(self):
        return trio.open_memory_channel[int](1)[1]


async def test_without_an_annotation_an_ambiguous_object_is_data_where_references_are_not_possible(
    session_pair, no_time
):
    untyped = Untyped()
    async with session_pair(untyped, None) as (_, session):
        proxy = session.proxy()
        plain = {"rows": 3}
        assert await proxy.result() == plain
        async with session.stream("items") as items:
            assert await items.receive() == [plain]
        async with trio.open_nursery() as nursery:
            assert await nursery.start(proxy.start) == {"a": plain}
        assert await proxy.asked(lambda: PAGE) == plain
        await session.notify("note", PAGE)
        await session.ping()
        assert untyped.notes == [plain]


async def test_a_channel_is_not_data_although_it_has_fields(session_pair, no_time):
    async with session_pair(Untyped(), None) as (_, session):
        with pytest.raises(trio_rpc.RemoteError, match="MemoryReceiveChannel cannot be sent"):
            await session.call("channel")
        with pytest.raises(trio_rpc.EncodeError, match="a notification cannot carry"):
            await session.notify("note", trio.open_memory_channel[int](1)[1])


async def test_an_ambiguous_object_of_a_subclass_is_data(session_pair, no_time):
    cls = _desk(Page, Longer(1, 2))
    async with session_pair(cls(), None) as (_, session):
        proxy = session.proxy("", cls)
        assert await proxy.result() == Page(1)
        assert await proxy.given(lambda got: got == {"rows": 1, "more": 2} or got == Page(1))
        assert await proxy.argument(Longer(1, 2)) is False  # it arrives as a Page
        await proxy.note(Longer(1, 2))


class Circle:
    @method
    async def take(self, node: Node) -> None: ...


async def test_data_that_contains_itself_is_refused(session_pair, no_time):
    node = Node("a")
    node.children.append(node)
    async with session_pair(Circle(), None) as (_, session):
        for call in (session.proxy("", Circle).take, session.proxy().take):
            with pytest.raises(trio_rpc.EncodeError):
                await call(node)


@dataclass
class Step(Ambiguous):
    """Contains a function at each level."""

    use: Callable[[int], Awaitable[int]]
    after: list[Step] = field(default_factory=list)


class Steps:
    @method
    async def run(self, step: Step) -> list[int]:
        results = [await step.use(1)]
        for one in step.after:
            results += await self.run(one)
        return results


async def test_functions_are_references_at_every_level_of_a_tree(session_pair, no_time):
    class Both(Ambiguous):
        def __call__(self, x: int = 0) -> int:
            return x + 1

    step = Step(Both(), [Step(lambda x: x + 2), Step(Both(), [Step(Both())])])
    async with session_pair(Steps(), None) as (_, session):
        assert await session.proxy("", Steps).run(step) == [2, 3, 2, 2]


async def test_an_object_of_a_registered_class_is_sent_as_that_class_everywhere(
    session_pair, no_time
):
    registry = TypeRegistry()
    registry.register(64, Rows, list, lambda items: Rows([*items, "registered"]))
    options = {"registry": registry}
    cls = _desk(Rows, Rows([1]))
    async with session_pair(cls(), None, options_a=options, options_b=options) as (_, session):
        proxy = session.proxy("", cls)
        assert await proxy.result() == [1, "registered"]
        assert await proxy.given(lambda got: got == [1, "registered"])
        assert await proxy.argument(Rows([1])) is False
