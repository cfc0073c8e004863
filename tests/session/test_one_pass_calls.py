"""Calls whose values are decoded directly into the annotated types (``wire/one_pass.py``)."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_rpc import InvalidArguments, TypeRegistry, fallback, method, notification, stream
from trio_rpc.testing import open_session_pair
from trio_rpc.wire import messages as m


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Size:
    x: int
    y: int = 0


class Shapes:
    """Handles points, and keeps the arguments that its handlers got."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @method
    async def moved(self, point: Point, by: int = 1) -> Point:
        """Move a point to the right."""
        self.seen.append(point)
        return Point(point.x + by, point.y)

    @method
    async def all_moved(self, points: list[Point]) -> dict[str, Point]:
        """Move points to the right."""
        return {str(number): Point(one.x + 1, one.y) for number, one in enumerate(points)}

    @method
    async def with_callback(
        self, point: Point, on_point: Callable[[Point], Awaitable[Point]]
    ) -> Point:
        """Pass a point to a callback."""
        return await on_point(point)

    @method
    async def wrong(self) -> Point:
        """Return no point."""
        return {"x": "text"}  # type: ignore[return-value]

    @notification
    async def note(self, point: Point) -> None:
        """Keep a point."""
        self.seen.append(point)

    @stream
    async def line(self, start: Point, count: int) -> AsyncIterator[Point]:
        """Send some points."""
        for x in range(count):
            yield Point(start.x + x)


@pytest.fixture
def read(monkeypatch):
    """Return the shapes of the messages with values that have been read, by their class."""
    found: list[tuple[type, bool]] = []
    for cls in (m.Request, m.Notification, m.Reply, m.Item):

        def made(self, *args, _init=cls.__init__, _cls=cls, **kwargs):
            _init(self, *args, **kwargs)
            found.append((_cls, self.shape is not None))

        monkeypatch.setattr(cls, "__init__", made)
    return found


def directly(read, cls):
    return (cls, True) in read


async def test_arguments_and_results_are_decoded_directly(read):
    async with open_session_pair(Shapes(), None) as (_, client):
        proxy = client.proxy("", Shapes)
        assert await proxy.moved(Point(1)) == Point(2)
        assert await proxy.moved(Point(1), 5) == Point(6)
        assert await proxy.all_moved([Point(1), Point(2)]) == {"0": Point(2), "1": Point(3)}
        with trio.fail_after(5):  # a deadline is a part of the Request
            assert await proxy.moved(Point(1)) == Point(2)
        assert await proxy.moved(point=Point(1), by=2) == Point(3)
    assert directly(read, m.Request)
    assert directly(read, m.Reply)


async def test_notifications_and_items_are_decoded_directly(read):
    service = Shapes()
    async with open_session_pair(service, None) as (_, client):
        proxy = client.proxy("", Shapes)
        await proxy.note(Point(3))
        await wait_all_tasks_blocked()
        assert service.seen == [Point(3)]
        async with proxy.line(Point(5), 3) as points:
            assert [point async for point in points] == [Point(5), Point(6), Point(7)]
        async with proxy.line(Point(5), 1) as points:
            assert [point async for point in points] == [Point(5)]
    assert directly(read, m.Notification)


async def test_without_an_interface_a_result_is_plain():
    async with open_session_pair(Shapes(), None) as (_, client):
        assert await client.call("moved", {"x": 1, "y": 2}) == {"x": 2, "y": 2}


async def test_callbacks_get_and_return_their_annotated_types():
    async def on_point(point: Point) -> Point:
        assert type(point) is Point
        return Point(point.x + 10)

    async with open_session_pair(Shapes(), None) as (_, client):
        proxy = client.proxy("", Shapes)
        assert await proxy.with_callback(Point(1), on_point) == Point(11)


async def test_a_value_that_does_not_fit_gets_the_same_error():
    async with open_session_pair(Shapes(), None) as (_, client):
        with pytest.raises(InvalidArguments, match=r"parameter 'point': Expected `int`, got `str`"):
            await client.call("moved", {"x": "text", "y": 1})
        with pytest.raises(InvalidArguments, match="at most 2 positional arguments"):
            await client.call("moved", {"x": 1}, 2, 3)
        with pytest.raises(Exception, match=r"the result of .*: Expected `int`, got `str`"):
            await client.proxy("", Shapes).wrong()
        assert await client.call("moved", {"x": 1, "y": 2}) == {"x": 2, "y": 2}


class Sizes:
    @method
    async def moved(self, size: Size) -> Size:
        """Return the size."""
        assert type(size) is Size
        return size


class Anything:
    @fallback
    async def any_call(self, call: Any) -> Any:
        """Return the first argument."""
        return call.args[0]


@pytest.mark.parametrize(
    ("other", "expected"),
    [(Sizes(), {"x": 1, "y": 2}), (Anything(), {"x": 1, "y": 2})],
    ids=["another class", "a fallback"],
)
async def test_a_service_that_is_replaced_while_a_call_waits_gets_its_own_types(
    other, expected, monkeypatch
):
    """The arguments were decoded for the handler that the name had when they arrived."""
    async with open_session_pair({"s": Shapes()}, None) as (server, client):
        protocol = server._core.protocol
        monkeypatch.setattr(type(protocol), "may_begin", property(lambda _: False))
        results = []

        async def call():
            results.append(await client.call("s.moved", Point(1, 2)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            [(message, _)] = server._core.incoming.waiting.values()
            assert message.shape is not None
            assert message.args == [Point(1, 2)]
            server.remove("s")
            server.set("s", other)
            monkeypatch.undo()
            server._core.reader.resume()
        assert results == [expected]


async def test_a_registered_class_is_an_extension_and_is_not_decoded_directly():
    registry = TypeRegistry()
    registry.register(64, Point, encode=lambda one: [one.x, one.y], decode=lambda xy: Point(*xy))
    options = {"registry": registry}
    async with open_session_pair(Shapes(), None, options_a=options, options_b=options) as (_, b):
        assert await b.proxy("", Shapes).moved(Point(1)) == Point(2)
        assert await b.call("moved", Point(1)) == Point(2)
