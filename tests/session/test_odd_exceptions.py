"""Exceptions whose text fails, and frozen ones: they arrive, and no second error hides them."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from unittest import mock

import pytest
import trio
import trio.testing

import trio_rpc
from trio_rpc import TypeRegistry, channels
from trio_rpc.util.one_exception import one_exception
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.messages import Notification


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Unshown(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


ODD = [Wordless("x"), Unshown("x"), Frozen(5)]


class Service:
    def __init__(self, exc: Exception | None = None):
        self.exc = exc
        self.seen: object = None
        self.began = trio.Event()
        self.ended = trio.Event()

    @trio_rpc.method(raises=(Wordless, Unshown, Frozen))
    async def fail(self) -> None:
        raise self.exc

    @trio_rpc.stream(raises=(Wordless, Unshown, Frozen))
    async def ticks(self):
        self.began.set()
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            self.ended.set()
            if self.exc is not None:
                raise self.exc

    @trio_rpc.duplex(raises=(Wordless, Unshown, Frozen))
    async def chat(self, channel: trio.abc.Channel[int]) -> None:
        self.began.set()
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()

    @trio_rpc.method(raises=(Wordless, Unshown, Frozen))
    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as exc:  # noqa: BLE001 - the test looks at it
            self.seen = exc


@pytest.mark.parametrize("exc", ODD, ids=lambda each: type(each).__name__)
async def test_an_odd_exception_of_a_handler_or_callback_arrives_as_itself(exc, session_pair):
    service = Service(exc)

    async def work():
        raise exc

    async with session_pair(service, None) as (_, session):
        with pytest.raises(type(exc)):
            await session.proxy("", Service).fail()
        await session.proxy("", Service).run(work)
    assert type(service.seen) is type(exc)


@pytest.mark.parametrize("exc", ODD[:2], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("name", ["ticks", "chat", "scope"])
async def test_a_block_that_is_left_by_an_exception_without_text_ends_its_call(
    exc, name, session_pair
):
    service = Service()
    async with session_pair(service, None) as (_, session):
        proxy = session.proxy("", Service)
        block = session.open_scope() if name == "scope" else getattr(proxy, name)()
        caught = None
        try:
            async with block:
                if name != "scope":  # a handler that has not begun when it is cancelled never does
                    with trio.fail_after(5):
                        await service.began.wait()
                raise exc
        except type(exc) as failure:
            caught = failure
        assert caught is exc
        if name != "scope":
            with trio.fail_after(5):
                await service.ended.wait()
        assert session.statistics().calls_out == 0


async def test_a_note_about_an_error_without_text_is_added_to_the_exception_of_a_block(
    session_pair,
):
    service = Service(Wordless("y"))
    async with session_pair(service, None) as (_, session):
        notes = None
        try:
            async with session.proxy("", Service).ticks() as ticks:
                await ticks.receive()
                raise Unshown("x")  # noqa: TRY301 - it is the block that is tested
        except Unshown as exc:
            notes = exc.__notes__
    assert notes == ["and ticks failed as it was closed: <repr() of Wordless failed>"]


async def test_a_frozen_exception_passes_through_one_exception_unchanged():
    mine, other = Frozen(1), Frozen(2)

    async def fail():
        raise other

    caught = None
    try:
        with one_exception() as body:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()
                body.append(mine)
                raise mine
    except Frozen as exc:
        caught = exc
    assert caught is mine
    assert mine.__notes__ == ["meanwhile, in the background: Frozen(code=2)"]


async def test_an_encode_function_may_raise_an_exception_without_text():
    registry = TypeRegistry()

    def encode(_value):
        raise Wordless

    registry.register(64, Service, encode, lambda _value: Service())
    with pytest.raises(
        trio_rpc.EncodeError, match=r"encode function of Service raised <repr\(\) of"
    ):
        Codec(registry).encode(Notification("", [Service()]))


class Held(Service):
    async def __aenter__(self):
        raise Wordless

    async def __aexit__(self, *_exc):
        pass


async def _refuse(_session, _credentials):
    raise Wordless


def _make(_session):
    raise Wordless


@pytest.mark.parametrize(
    ("services", "options"),
    [(None, {"authenticate": _refuse}), (_make, {}), (lambda _session: Held(), {})],
    ids=["authenticate", "services", "context manager"],
)
async def test_a_bug_whose_repr_fails_ends_one_session_and_not_the_run(services, options, caplog):
    """Trio takes the repr() of each exception that ends a task."""
    async with trio_rpc.open_server(services, "tcp://127.0.0.1:0", **options) as server:
        with pytest.raises(trio_rpc.SessionBroken):
            async with trio_rpc.connect(server.urls[0]):
                raise AssertionError("it must not open")
        await trio.testing.wait_all_tasks_blocked()
        assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [
            ("Wordless: <str() of Wordless failed>, whose repr() failed",)
        ]


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


async def test_the_function_of_a_thread_may_raise_an_exception_without_text():
    async def main(_channel):
        raise Mute

    with trio.fail_after(30), pytest.raises(Mute):
        async with channels.open_thread_channel(main) as channel:
            with pytest.raises(trio.BrokenResourceError, match="ended with Mute: <str"):
                await channel.receive()


def spec(number):
    return number


async def test_a_mock_with_a_function_as_its_spec_is_a_callback_and_may_make_services(session_pair):
    class Calling:
        @trio_rpc.method
        async def run(self, work: Callable[[int], Awaitable[int]]) -> int:
            return await work(1)

    work = mock.Mock(spec=spec, side_effect=spec)
    services = mock.Mock(spec=spec, side_effect=lambda _session: Calling())
    async with session_pair(services, None) as (_, session):
        assert await session.proxy("", Calling).run(work) == 1
        assert await session.call("run", work) == 1
