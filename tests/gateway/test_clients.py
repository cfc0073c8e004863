"""A client and its connections, over memory channels, with a mock clock that jumps."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

import trio_rpc
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.call import CallSettings, GatewayCall
from trio_rpc.gateway.server.connection import Connection, End
from trio_rpc.gateway.server.results import Held, Results
from trio_rpc.services.tables import build_table


class Pipe:
    """One WebSocket: the messages sent over it, and the messages its other end sends."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.is_stuck = False
        self._to, self._from = trio.open_memory_channel[str | None](1000)

    async def send(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_stuck:
            await trio.sleep_forever()
        got = json.loads(text)
        self.sent += got if isinstance(got, list) else [got]

    async def receive(self) -> str | None:
        return await self._from.receive()

    def receives(self, kind: str, **rest: Any) -> None:
        self._to.send_nowait(json.dumps({"type": kind, **rest}))

    def close(self) -> None:
        self._to.send_nowait(None)

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.sent]


class Service:
    def __init__(self) -> None:
        self.count = 0
        self.ended = False

    @trio_rpc.method
    async def call_until_cancelled(self, found: Callable[[int], Awaitable[None]]) -> None:
        try:
            while True:
                await found(self.count)
                self.count += 1
        finally:
            self.ended = True

    @trio_rpc.method
    async def shielded(self, found: Callable[[int], Awaitable[None]]) -> None:
        with trio.CancelScope(shield=True):
            while self.count < 5_000:
                await found(self.count)
                self.count += 1

    @trio_rpc.method
    async def interrupted(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def service():
    return Service()


def work_for(
    service: Service, name: str = "call_until_cancelled", timeout: float = float("inf")
) -> GatewayCall:
    method = build_table(service)[name]
    return GatewayCall(method, {}, None, timeout, CallSettings((), "message"), lambda _: None)


def connect(client: Client, pipe: Pipe) -> Connection:
    return Connection(client, {"type": "uuid"}, pipe.send, pipe.receive)


async def run_to(ends: list[End], connection: Connection) -> None:
    ends.append(await connection.run())


def limits(**changes: Any) -> GatewayLimits:
    return GatewayLimits(**{"callbacks_ahead": 5, "grace": 30, "keepalive": 20, **changes})


async def test_a_handler_waits_while_its_client_has_too_many_unhandled_callbacks(service, nursery):
    client, pipe = Client(limits(), resumable=True), Pipe()
    connection = connect(client, pipe)
    await nursery.start(client.run)
    nursery.start_soon(connection.run)
    work = work_for(service)
    client.start(work, key=None)
    await trio.testing.wait_all_tasks_blocked()
    assert service.count == 5
    pipe.receives("handled", request_uuid=work.uuid, count=2)
    await trio.testing.wait_all_tasks_blocked()
    assert service.count == 7
    for wrong in (2, 100, -1, "3", True, None):
        pipe.receives("handled", request_uuid=work.uuid, count=wrong)
    await trio.testing.wait_all_tasks_blocked()
    assert service.count == 7


async def test_callbacks_wait_while_the_backlog_is_full_of_unacknowledged_messages(
    service, nursery
):
    client = Client(limits(backlog_messages=3, callbacks_ahead=100), resumable=True)
    pipe = Pipe()
    connection = connect(client, pipe)
    await nursery.start(client.run)
    nursery.start_soon(connection.run)
    client.start(work_for(service), key=None)
    await trio.testing.wait_all_tasks_blocked()
    assert service.count == 3
    pipe.receives("ack", seq=2)
    await trio.testing.wait_all_tasks_blocked()
    assert service.count == 5


async def test_for_a_client_without_acknowledgements_reading_makes_room(service, nursery):
    client = Client(limits(backlog_messages=3), resumable=False)
    pipe = Pipe()
    connection = connect(client, pipe)
    await nursery.start(client.run)
    nursery.start_soon(connection.run)
    client.start(work_for(service), key=None)
    while service.count < 50:
        await trio.lowlevel.checkpoint()
    pipe.is_stuck = True
    await trio.testing.wait_all_tasks_blocked()
    assert service.count - len(pipe.sent) <= 5


async def test_a_client_that_is_disconnected_for_longer_than_the_grace_time_is_ended(
    service, nursery, autojump_clock
):
    client, pipe = Client(limits(), resumable=True), Pipe()
    connection = connect(client, pipe)
    await nursery.start(client.run)
    nursery.start_soon(connection.run)
    client.start(work_for(service), key=None)
    await trio.testing.wait_all_tasks_blocked()
    pipe.close()
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(29)
    assert not client.is_over
    again = Pipe()
    second = connect(client, again)
    nursery.start_soon(second.run)
    for _ in range(10):
        again.receives("ping")
        await trio.sleep(15)
    assert not service.ended
    again.close()
    await trio.sleep(31)
    assert client.is_over
    assert service.ended
    assert client.works == {}


async def test_a_silent_client_is_pinged_and_then_disconnected(nursery, autojump_clock):
    client, pipe = Client(limits(), resumable=True), Pipe()
    connection = connect(client, pipe)
    ends: list[End] = []
    await nursery.start(client.run)
    nursery.start_soon(run_to, ends, connection)
    await trio.sleep(21)
    assert pipe.kinds == ["uuid", "ping"]
    pipe.receives("pong")
    await trio.sleep(21)
    assert pipe.kinds == ["uuid", "ping", "ping"]
    assert ends == []
    await trio.sleep(20)
    assert ends == [End.SILENT]
    assert not client.is_over
    await trio.sleep(31)
    assert client.is_over


async def test_a_frozen_client_is_disconnected_even_if_its_writer_is_stuck(nursery, autojump_clock):
    client, pipe = Client(limits(), resumable=True), Pipe()
    pipe.is_stuck = True
    ends: list[End] = []
    connection = connect(client, pipe)
    await nursery.start(client.run)
    nursery.start_soon(run_to, ends, connection)
    await trio.sleep(41)
    assert ends == [End.SILENT]


async def test_a_client_counts_as_disconnected_even_while_its_send_cannot_be_cancelled(
    nursery, autojump_clock
):
    """hypercorn shields its sends."""
    client, pipe = Client(limits(), resumable=True), Pipe()
    released = trio.Event()

    async def stuck(_text: str) -> None:
        with trio.CancelScope(shield=True):
            await released.wait()

    connection = Connection(client, {"type": "uuid"}, stuck, pipe.receive)
    ends: list[End] = []
    await nursery.start(client.run)
    nursery.start_soon(run_to, ends, connection)
    await trio.sleep(41)
    assert (ends, client.is_over) == ([], False)
    await trio.sleep(31)
    assert (ends, client.is_over) == ([], True)
    released.set()
    await trio.testing.wait_all_tasks_blocked()
    assert ends == [End.SILENT]


async def test_a_legacy_client_is_not_pinged(nursery, autojump_clock):
    client, pipe = Client(limits(), resumable=False), Pipe()
    connection = connect(client, pipe)
    await nursery.start(client.run)
    nursery.start_soon(connection.run)
    await trio.sleep(1000)
    assert pipe.kinds == ["uuid"]


async def replace(client: Client, seen: int, nursery: trio.Nursery) -> Pipe:
    """Reconnect as the gateway does, all in one tick."""
    assert client.backlog.rewind(seen)
    pipe = Pipe()
    newer = connect(client, pipe)
    nursery.start_soon(newer.run)
    return pipe


def numbers_of(*pipes: Pipe) -> list[int]:
    return [message["seq"] for pipe in pipes for message in pipe.sent if "seq" in message]


async def test_race_a_replaced_writer_takes_no_more_messages(nursery):
    """The writer is woken in the tick of the newer connection. Messages it took would be lost."""
    client, old = Client(limits(), resumable=True), Pipe()
    connection = connect(client, old)
    ends: list[End] = []
    await nursery.start(client.run)
    nursery.start_soon(run_to, ends, connection)
    await trio.testing.wait_all_tasks_blocked()
    client.say({"type": "callback", "found": 1})  # wakes the writer, which has not run yet
    new = await replace(client, 0, nursery)
    await trio.testing.wait_all_tasks_blocked()
    assert ends == [End.REPLACED]
    assert (numbers_of(old), numbers_of(new)) == ([], [1])


async def test_race_a_writer_replaced_while_it_finishes_a_frame_takes_no_more_messages(nursery):
    client, old = Client(limits(frame_bytes=1), resumable=True), Pipe()
    go_on = trio.Event()

    async def send(text: str) -> None:
        await old.send(text)
        if "seq" in text:
            with trio.CancelScope(shield=True):  # as hypercorn does
                await go_on.wait()

    connection = Connection(client, {"type": "uuid"}, send, old.receive)
    await nursery.start(client.run)
    nursery.start_soon(connection.run)
    for number in range(3):
        client.say({"type": "callback", "found": number})
    await trio.testing.wait_all_tasks_blocked()
    assert numbers_of(old) == [1]
    go_on.set()  # wakes the writer, which has not run yet
    new = await replace(client, 1, nursery)
    await trio.testing.wait_all_tasks_blocked()
    assert (numbers_of(old), numbers_of(new)) == ([1], [2, 3])


@pytest.mark.parametrize("ticks", range(0, 60, 3))
async def test_race_no_message_is_lost_whenever_a_connection_is_replaced(service, nursery, ticks):
    client, old = Client(limits(callbacks_ahead=50), resumable=True), Pipe()
    connection = connect(client, old)
    await nursery.start(client.run)
    nursery.start_soon(connection.run)
    client.start(work_for(service), key=None)
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    seen = old.sent[-1].get("seq", 0) if old.sent else 0
    new = await replace(client, seen, nursery)
    await trio.testing.wait_all_tasks_blocked()
    numbers = [number for number in numbers_of(old) if number <= seen] + numbers_of(new)
    assert numbers == list(range(1, 51))
    assert new.kinds[0] == "uuid"


async def test_only_the_newest_of_several_connections_sends_messages(nursery):
    """The messages of a client leave in order, through its newest writer only."""
    client = Client(limits(), resumable=True)
    pipes = [Pipe() for _ in range(3)]
    await nursery.start(client.run)
    ends: list[End] = []
    for pipe in pipes:
        nursery.start_soon(run_to, ends, connect(client, pipe))
    await trio.testing.wait_all_tasks_blocked()
    for number in range(1, 4):
        client.say({"type": "callback", "found": number})
        await trio.testing.wait_all_tasks_blocked()
        assert [numbers_of(pipe) for pipe in pipes] == [[], [], list(range(1, number + 1))]
    assert ends == [End.REPLACED, End.REPLACED]
    pipes[0].close()  # an old connection that ends late changes nothing
    pipes[1].close()
    await trio.testing.wait_all_tasks_blocked()
    assert not client.is_disconnected


async def test_a_shielded_callback_ends_with_its_client(service, nursery):
    client, pipe = Client(limits(), resumable=True), Pipe()
    connection = connect(client, pipe)
    await nursery.start(client.run)
    nursery.start_soon(connection.run)
    client.start(work_for(service, "shielded"), key=None)
    await trio.testing.wait_all_tasks_blocked()
    assert service.count == 5
    client.end("the test")
    while client.works:
        await trio.lowlevel.checkpoint()
    assert service.count == 5_000


async def test_law_7_a_fatal_exception_is_raised_and_its_caller_gets_an_error(service):
    client = Client(limits(), resumable=True)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(client.run)
            work = work_for(service, "interrupted")
            client.start(work, key=None)
            await trio.sleep_forever()
    assert caught.group_contains(KeyboardInterrupt)
    assert work.outcome is not None
    assert json.loads(work.outcome)["type"] == "error"


async def test_a_call_whose_deadline_has_passed_does_not_start(service, nursery):
    client, pipe = Client(limits(), resumable=True), Pipe()
    connection = connect(client, pipe)
    await nursery.start(client.run)
    nursery.start_soon(connection.run)
    client.start(work_for(service, timeout=0), key=None)
    await trio.testing.wait_all_tasks_blocked()
    assert pipe.sent[1]["code"] == "deadline"
    assert service.count == 0


async def test_results_are_bounded_and_forgotten_after_their_time(service, autojump_clock):
    results = Results(limits(max_results=2, result_ttl=10))
    client = Client(limits(), resumable=True)
    first, second, third = (work_for(service) for _ in range(3))
    for work in (first, second):
        assert results.make_room()
        results.hold(Held(work, client))
    assert not results.make_room()  # both calls are running
    results.ended(second)
    results.ended(third)  # it was never held
    await trio.sleep(5)
    assert results.get(second.uuid).work is second
    assert results.make_room()  # the finished call is forgotten first
    results.hold(Held(third, client))
    assert results.get(second.uuid) is None
    results.ended(third)
    await trio.sleep(11)
    assert results.get(third.uuid) is None
    assert results.get(first.uuid).work is first
