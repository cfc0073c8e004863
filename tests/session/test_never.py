"""``Never``: no value fits it, as a result, an item, a field or an argument."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Never, NoReturn, NotRequired, TypedDict

import pytest
import trio

import trio_rpc
from trio_rpc import method, notification, stream
from trio_rpc.services.tables import build_table

RETURNS = "is annotated never to return, but has returned a "


class Stops:
    @method
    async def wait(self, result: object) -> Never:
        await trio.lowlevel.checkpoint()
        return result

    @method
    def at_once(self, result: object) -> NoReturn:
        return result

    @method
    async def exit(self) -> Never:
        raise ValueError("stopped")

    @notification
    async def told(self) -> Never:
        pass

    @stream
    async def items(self) -> AsyncIterator[Never]:
        yield 1

    @method
    async def started(self, *, task_status: trio.TaskStatus[Never]) -> None:
        task_status.started(1)

    @method
    async def ask(self, f: Callable[[], Awaitable[Never]]) -> str:
        with pytest.raises(trio_rpc.DecodeError, match="Expected no value"):
            await f()
        return "raised"


@pytest.mark.parametrize("name", ["wait", "at_once"])
@pytest.mark.parametrize("result", [None, 1])
async def test_a_handler_that_returns_although_it_never_should_has_failed(
    session_pair, name, result, caplog
):
    async with session_pair(Stops(), None) as (_, session):
        for proxy in (session.proxy("", Stops), session.proxy()):
            with pytest.raises(TypeError, match=f"{name} {RETURNS}{type(result).__name__}"):
                await getattr(proxy, name)(result)
    assert RETURNS in caplog.text


async def test_a_handler_that_never_returns_may_raise(session_pair):
    async with session_pair(Stops(), None) as (_, session):
        with pytest.raises(ValueError, match="stopped"):
            await session.proxy("", Stops).exit()


async def test_a_notification_that_returns_although_it_never_should_is_logged(session_pair, caplog):
    async with session_pair(Stops(), None) as (_, session):
        await session.proxy("", Stops).told()
        await session.ping()
    assert f"told {RETURNS}NoneType" in caplog.text


async def test_no_item_started_value_or_result_of_a_callback_is_a_never(session_pair):
    async with session_pair(Stops(), None) as (_, session):
        stops = session.proxy("", Stops)
        assert await stops.ask(lambda: 1) == "raised"
        async with stops.items() as items:
            with pytest.raises(trio_rpc.DecodeError, match="Expected no value"):
                await items.receive()
        with pytest.RaisesGroup(pytest.RaisesExc(trio_rpc.DecodeError, match="Expected no value")):
            async with trio.open_nursery() as nursery:
                await nursery.start(stops.started)


async def test_a_result_of_another_program_does_not_fit_never(session_pair):
    class Returns:
        @method
        async def wait(self, result: object) -> object:
            return result

    async with session_pair(Returns(), None) as (_, session):
        with pytest.raises(
            trio_rpc.DecodeError, match=r"result of wait: Expected no value, .*`int`"
        ):
            await session.proxy("", Stops).wait(1)


class Absent(TypedDict):
    gone: NotRequired[Never]


async def test_an_empty_list_and_an_absent_key_have_no_values(session_pair):
    class Empty:
        @method
        async def count(self, x: list[Never], y: Absent, z: int) -> int:
            return len(x) + len(y) + z

    async with session_pair(Empty(), None) as (_, session):
        assert await session.proxy("", Empty).count([], {}, 1) == 1
        for args in (([1], {}, 1), ([], {"gone": 1}, 1)):
            with pytest.raises(trio_rpc.InvalidArguments, match="Expected no value"):
                await session.proxy("", Empty).count(*args)


@dataclass
class Impossible:
    gone: Never


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Never, "parameter 'x' is Never: remove it"),
        (NoReturn, "parameter 'x' is Never: remove it"),
        (Impossible, "parameter 'x' .*: field 'gone' of Impossible is Never: remove it"),
    ],
)
async def test_a_parameter_that_no_call_could_pass_is_refused_at_registration(annotation, text):
    async def ask(self, x): ...

    ask.__annotations__["x"] = annotation
    with pytest.raises(TypeError, match=f"ask: .*{text}|ask: {text}"):
        build_table(type("Odd", (), {"ask": method(ask)})())


# ── filters that proceed twice, dispatching callbacks, and runs that are over ───────────────


async def test_a_filter_of_the_serving_end_cannot_run_a_handler_twice(session_pair):
    ran: list[int] = []
    refused: list[str] = []

    class Counts:
        @method
        async def count(self) -> int:
            ran.append(1)
            return len(ran)

    async def twice(_call, proceed):
        result = await proceed()
        with pytest.raises(RuntimeError, match=r"count: a filter .* proceeded twice") as caught:
            await proceed()
        refused.append(str(caught.value))
        return result

    async with session_pair(Counts(), None, options_a={"filters": [twice]}) as (_, session):
        assert await session.proxy("", Counts).count() == 1
    assert (len(ran), len(refused)) == (1, 1)


async def test_a_filter_of_the_calling_end_cannot_open_a_block_twice(session_pair):
    async def twice(_call, proceed):
        await proceed()
        with pytest.raises(RuntimeError, match="proceeded twice"):
            await proceed()
        done.append(1)

    done: list[int] = []
    async with (
        session_pair(Stops(), None, options_b={"filters": [twice]}) as (_, session),
        session.stream("items") as items,
    ):
        assert await items.receive() == 1
    assert done
