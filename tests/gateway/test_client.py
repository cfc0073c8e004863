"""The Python client against a gateway over real sockets, with a proxy between them that cuts."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing
from helpers.gateway_tools import hosting, until_it_fails
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

import trio_rpc
from trio_rpc.errors import Fate
from trio_rpc.gateway import Gateway, GatewayLimits, Message
from trio_rpc.gateway.client import message as client
from trio_rpc.gateway.client.session import MAX_HELD, ClientSession
from trio_rpc.testing import ChaosProxy, Faults, open_chaos_proxy


class Scanner:
    def __init__(self) -> None:
        self.started = trio.Event()
        self.ended = trio.Event()
        self.finished = trio.Event()
        self.go_on = trio.Event()
        self.calls = 0

    @trio_rpc.method
    async def scan(
        self,
        count: int,
        found: Callable[[int], Awaitable[None]],
        progress: Callable[[float], Awaitable[None]] | None = None,
    ) -> dict[str, int]:
        self.calls += 1
        self.started.set()
        for number in range(count):
            await found(number)
        if progress is not None:
            await progress(1.0)
        self.finished.set()
        return {"count": count}

    @trio_rpc.method
    async def steps(self, found: Callable[[int], Awaitable[None]]) -> str:
        await found(1)
        self.started.set()
        await self.go_on.wait()
        await found(2)
        return "done"

    @trio_rpc.method
    async def hold(self, found: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.calls += 1
        self.started.set()
        try:
            if found is not None:
                await found(1)
            await trio.sleep_forever()
        finally:
            self.ended.set()

    @trio_rpc.method
    async def finish_anyway(self) -> str:
        self.started.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "finished"

    @trio_rpc.method
    async def fail(self) -> None:
        raise LookupError("not here")

    @trio_rpc.method
    async def tell(self, found: Callable[[int], Awaitable[None]]) -> str:
        return await until_it_fails(found)

    @trio_rpc.method
    async def budget(self) -> float:
        return trio.current_effective_deadline() - trio.current_time()

    @trio_rpc.method
    async def cancel_itself(self) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.lowlevel.checkpoint()
        raise trio_rpc.RemoteCancelled("of its own")


NO_FAULTS = Faults()


@pytest.fixture
def scanner():
    return Scanner()


@contextlib.asynccontextmanager
async def gateway_for(scanner: object, **options: object) -> AsyncIterator[Message]:
    async with hosting(Gateway(scanner, **options)) as url:
        yield Message("127.0.0.1", int(url.rpartition(":")[2]))


@contextlib.asynccontextmanager
async def through_a_proxy(
    scanner: object, back: Faults = NO_FAULTS, **options: object
) -> AsyncIterator[tuple[Message, ChaosProxy]]:
    async with hosting(Gateway(scanner, **options)) as url:
        async with open_chaos_proxy(f"tcp{url.removeprefix('http')}", back=back) as proxy:
            yield Message("127.0.0.1", int(proxy.url.rpartition(":")[2])), proxy


async def test_a_call_with_callbacks(scanner):
    async with gateway_for(scanner) as message, message.connect():
        assert message.state == "open"
        assert message.client_id
        found, shares = [], []

        async def progress(share):
            await trio.lowlevel.checkpoint()
            shares.append(share)

        result = await message.post(
            "scan", {"count": 3}, {"found": found.append, "progress": progress}
        )
        assert (result, found, shares) == ({"count": 3}, [0, 1, 2], [1.0])
    assert message.state == "closed"
    assert message.client_id is None


async def test_the_connection_is_opened_at_need_and_closed_when_nobody_needs_it(scanner):
    async with gateway_for(scanner) as message:
        found = []
        assert await message.post("scan", {"count": 2}, {"found": found.append}) == {"count": 2}
        assert message.state == "closed"
        async with message.connect():
            name = message.client_id
            await message.post("scan", {"count": 1}, {"found": found.append})
            async with message.connect():
                assert message.client_id == name
            assert message.state == "open"


async def test_who_leaves_first_hands_the_connection_on(scanner):
    async with gateway_for(scanner) as message, trio.open_nursery() as nursery:
        results = []

        async def second():
            results.append(await message.post("steps", {}, {"found": results.append}))

        async with message.connect():
            name = message.client_id
            nursery.start_soon(second)
            await scanner.started.wait()
        assert message.client_id == name
        scanner.go_on.set()
    assert results == [1, 2, "done"]


async def test_a_post_without_callbacks_takes_no_websocket(scanner):
    async with through_a_proxy(scanner) as (message, proxy):
        assert await message.post("budget") > 10
        assert message.client_id is None
        assert proxy.accepted == 1
        with pytest.raises(trio_rpc.RemoteError, match="not here"):
            await message.post("fail")
        with trio.fail_after(9):
            assert 5 < await message.post("budget") <= 9
        with pytest.raises(trio_rpc.InvalidArguments):
            await message.post("scan", {"count": 1})  # it has callbacks


async def test_what_a_handler_raises_is_raised_here(scanner):
    async with gateway_for(scanner) as message, message.connect():
        with pytest.raises(trio_rpc.RemoteError) as caught:
            await message.post("fail")
        assert caught.value.type_name == "builtins.LookupError"
        assert caught.value.message == "not here"


async def test_refusals_are_raised_as_what_they_are(scanner):
    async with gateway_for(scanner) as message, message.connect():
        with pytest.raises(trio_rpc.MethodNotFound, match="'nope'"):
            await message.post("nope")
        with pytest.raises(trio_rpc.InvalidArguments) as caught:
            await message.post("scan", {"count": "x"}, {"found": print})
        assert caught.value.parameter == "count"
        with pytest.raises(trio_rpc.InvalidArguments) as caught:
            await message.post("scan", {"count": 1}, {"found": print, "lost": print})
        assert caught.value.parameter == "lost"
        with pytest.raises(trio_rpc.EncodeError):
            await message.post("scan", {"count": object()}, {"found": print})
    assert scanner.calls == 0


async def test_leaving_the_scope_of_a_post_cancels_its_work_and_waits_for_that(scanner):  # law 2
    async with gateway_for(scanner) as message, message.connect():
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(message.post, "hold")
                await scanner.started.wait()
                scope.cancel()
        assert scanner.ended.is_set()


async def test_leaving_the_block_of_the_connection_does_too(scanner):
    async with gateway_for(scanner) as message:
        with trio.CancelScope() as scope:
            async with message.connect(), trio.open_nursery() as nursery:
                nursery.start_soon(message.post, "hold")
                await scanner.started.wait()
                scope.cancel()
        assert scanner.ended.is_set()
        assert message.state == "closed"


async def test_a_callback_that_is_cancelled_cancels_the_work(scanner):
    async with gateway_for(scanner) as message, message.connect():
        with trio.CancelScope() as scope:

            async def found(number):
                scope.cancel()
                await trio.sleep_forever()

            await message.post("hold", {}, {"found": found})
        assert scope.cancelled_caught
        assert scanner.ended.is_set()


async def test_a_callback_that_ends_the_program_does_too(scanner):
    async with gateway_for(scanner) as message, message.connect():

        def found(number):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await message.post("hold", {}, {"found": found})
        assert scanner.ended.is_set()


async def test_a_result_that_won_the_race_is_returned(scanner):  # law 3
    async with gateway_for(scanner) as message, message.connect():
        results = []
        with trio.CancelScope() as scope:

            async def post():
                results.append(await message.post("finish_anyway"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(post)
                await scanner.started.wait()
                scope.cancel()
        assert results == ["finished"]


async def test_a_result_whose_callbacks_were_not_run_any_more_is_none(scanner):
    """Found by a soak: a local call would have ended at the callback."""
    async with gateway_for(scanner) as message, message.connect():
        results = []
        with trio.CancelScope() as scope:

            async def found(number):
                await scanner.finished.wait()  # all has come, the result too
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

            results.append(await message.post("scan", {"count": 9}, {"found": found}))
        assert scope.cancelled_caught
        assert results == []


async def test_deadlines_travel_and_a_caller_sees_its_own_scope(scanner):  # law 5
    async with gateway_for(scanner) as message, message.connect():
        with trio.fail_after(9):
            assert 5 < await message.post("budget") <= 9
        with trio.move_on_after(0.1) as scope:
            await message.post("hold")
        assert scope.cancelled_caught
        assert scanner.ended.is_set()


async def test_a_gateway_that_does_not_confirm_is_waited_for_so_long_only(scanner):
    async with through_a_proxy(scanner) as (_, proxy):
        message = Message("127.0.0.1", int(proxy.url.rpartition(":")[2]), cancel_grace=0.05)
        async with message.connect():
            with trio.CancelScope() as scope:

                async def cut(_number):
                    proxy.is_refusing = True
                    proxy.cut()
                    scope.cancel()

                await message.post("hold", {}, {"found": cut})
            assert scope.cancelled_caught
            assert not scanner.ended.is_set()


async def test_a_callback_that_raises_is_reported_and_the_call_goes_on(scanner, caplog):
    async with gateway_for(scanner) as message, message.connect():

        def found(number):
            raise ValueError("cannot show it")

        result = await message.post("tell", {}, {"found": found})
        assert result == "Error: found: ValueError: cannot show it"
    assert "the callback 'found' failed" in caplog.text


async def test_a_callback_that_was_not_given_is_skipped_with_one_warning(caplog):
    posted = trio.Event()

    async def calls_all(request):
        posted.set()
        return JSONResponse({"type": "start", "request_uuid": "r", "callbacks": []})

    async def ws(websocket):
        await websocket.accept()
        await websocket.send_json({"type": "uuid", "uuid": "c"})
        await posted.wait()
        for number in (1, 2, 3):
            text = {"type": "callback", "request_uuid": "r", "other": 1, "found": number}
            await websocket.send_json({**text, "seq": number})
        await websocket.send_json({"type": "finish", "request_uuid": "r", "seq": 4})
        await websocket.receive()

    async with fake_gateway(calls_all, ws) as message, message.connect():
        found = []
        with caplog.at_level(logging.WARNING, "trio_rpc.gateway"):
            assert await message.post("scan", {}, {"found": found.append}) is None
        assert found == [1, 2, 3]
        assert [record.getMessage() for record in caplog.records] == [
            "the gateway calls 'other', but post got no such callback"
        ]


@contextlib.asynccontextmanager
async def fake_gateway(post, ws) -> AsyncIterator[Message]:
    from starlette.routing import WebSocketRoute

    app = Starlette(
        routes=[
            Route("/api/{method}/{client}", post, methods=["POST"]),
            WebSocketRoute("/ws", ws),
        ]
    )
    async with hosting(app) as url:
        yield Message("127.0.0.1", int(url.rpartition(":")[2]))


async def test_what_overtakes_the_answer_is_held_and_delivered_in_order():
    posted, sent = trio.Event(), trio.Event()

    async def slow(request):
        posted.set()
        await sent.wait()
        return JSONResponse({"type": "start", "request_uuid": "r"})

    async def ws(websocket):
        await websocket.accept()
        await websocket.send_json({"type": "uuid", "uuid": "c"})
        await posted.wait()
        for number in (1, 2):
            text = {"type": "callback", "request_uuid": "r", "found": number, "seq": number}
            await websocket.send_json(text)
        await websocket.send_json({"type": "finish", "request_uuid": "r", "a": 1, "seq": 3})
        sent.set()
        await websocket.receive()

    async with fake_gateway(slow, ws) as message, message.connect():
        found = []
        assert await message.post("scan", {}, {"found": found.append}) == {"a": 1}
        assert found == [1, 2]


async def test_work_that_nobody_waits_for_is_cancelled():
    """Its POST was answered, and the answer was lost."""
    heard = []

    async def lost(request):
        return Response(status_code=500)

    async def ws(websocket):
        await websocket.accept()
        await websocket.send_json({"type": "uuid", "uuid": "c"})
        text = {"type": "callback", "request_uuid": "r", "found": 1, "seq": 1}
        await websocket.send_json(text)
        heard.append(json.loads((await websocket.receive())["text"]))
        done.set()

    done = trio.Event()
    async with fake_gateway(lost, ws) as message, message.connect():
        with pytest.raises(trio_rpc.RpcError, match="500"):
            await message.post("scan", {}, {"found": print})
        await done.wait()
    assert heard == [{"type": "cancel", "request_uuid": "r", "reason": "no caller waits for it"}]


async def test_none_is_lost_and_none_comes_twice_over_five_cuts(scanner):
    limits = GatewayLimits(callbacks_ahead=50)
    async with through_a_proxy(scanner, limits=limits) as (message, proxy):
        found = []

        async def take(number):
            found.append(number)
            if number % 400 == 200:
                proxy.cut()

        async with message.connect():
            name = message.client_id
            await message.post("scan", {"count": 2000}, {"found": take})
            assert message.client_id == name
        assert found == list(range(2000))
        assert proxy.accepted >= 6


async def test_bytes_that_arrive_one_by_one(scanner):
    async with through_a_proxy(scanner, back=Faults(max_slice=1)) as (message, _):
        found = []
        async with message.connect():
            await message.post("scan", {"count": 20}, {"found": found.append})
        assert found == list(range(20))


async def test_a_cancel_while_the_connection_is_down_is_said_when_it_is_back(scanner):
    async with through_a_proxy(scanner) as (message, proxy), message.connect():
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(message.post, "hold")
                await scanner.started.wait()
                proxy.cut()
                scope.cancel()
        assert scanner.ended.is_set()


async def test_a_session_that_the_gateway_has_forgotten_fails_its_calls(scanner):
    async with hosting(Gateway(scanner)) as url, hosting(Gateway(Scanner())) as other:
        async with open_chaos_proxy(f"tcp{url[4:]}") as proxy:
            message = Message("127.0.0.1", int(proxy.url.rpartition(":")[2]))
            async with message.connect():
                name = message.client_id

                def cut(_number):
                    proxy.target = f"tcp{other[4:]}"
                    proxy.cut()

                with pytest.raises(trio_rpc.SessionBroken, match="session lost") as caught:
                    await message.post("hold", {}, {"found": cut})
                assert caught.value.fate is Fate.UNKNOWN
                assert await message.post("scan", {"count": 1}, {"found": print}) == {"count": 1}
                assert message.client_id != name


async def test_a_gateway_out_of_reach_for_longer_than_the_grace_fails_calls(scanner, monkeypatch):
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.01)
    limits = GatewayLimits(grace=0.1)
    async with through_a_proxy(scanner, limits=limits) as (message, proxy):
        async with message.connect():

            def cut(_number):
                proxy.is_refusing = True
                proxy.cut()

            with pytest.raises(trio_rpc.SessionBroken, match="could not be reached"):
                await message.post("hold", {}, {"found": cut})
        with trio.fail_after(20):  # the gateway's grace is over at about the same time
            await scanner.ended.wait()


async def test_who_needs_a_connection_hears_why_there_is_none(scanner):
    async with through_a_proxy(scanner) as (message, proxy):
        proxy.is_refusing = True
        for _ in range(2):
            with pytest.raises(OSError, match="cannot connect to 127"):
                async with message.connect():
                    pass
        with pytest.raises(OSError, match="127"):
            await message.post("scan", {"count": 1}, {"found": print})
        proxy.is_refusing = False
        async with message.connect():
            proxy.is_refusing = True
            proxy.cut()
            while message.state == "open":
                await trio.lowlevel.checkpoint()
            with pytest.raises(OSError, match="127"):
                async with message.connect():
                    pass
    async with hosting(Gateway(scanner, allowed_hosts=["elsewhere"])) as url:
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        with pytest.raises(ConnectionError, match="answered 403"):
            async with message.connect():
                pass


async def test_what_is_no_gateway_is_told():
    async def ws(websocket):
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.receive()

    async with fake_gateway(None, ws) as message:
        with pytest.raises(trio_rpc.RemoteProtocolError, match="not a trio_rpc gateway"):
            async with message.connect():
                pass


async def test_a_post_whose_answer_was_lost_starts_one_call(scanner):
    async with gateway_for(scanner) as message, message.connect():
        send, sent = message._web._send, []

        async def lossy(*args, **kwargs):
            sent.append(await send(*args, **kwargs))
            if len(sent) == 1:
                raise trio_rpc.SessionBroken("lost")
            return sent[-1]

        message._web._send = lossy
        found = []
        await message.post("scan", {"count": 2}, {"found": found.append})
        assert found == [0, 1]
        assert len(sent) == 2
        assert scanner.calls == 1


async def test_ordinary_requests():
    async def any_verb(request):
        body = await request.body()
        told = {"verb": request.method, "query": dict(request.query_params), "body": body.decode()}
        return JSONResponse(told)

    async def nothing(request):
        return Response(status_code=204)

    async def broken(request):
        return PlainTextResponse("oh no", status_code=418)

    app = Starlette(
        routes=[
            Route("/thing", any_verb, methods=["GET", "PUT", "DELETE"]),
            Route("/nothing", nothing),
            Route("/broken", broken),
        ]
    )
    async with hosting(app) as url:
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        got = await message.get("/thing", {"a": 1})
        assert got == {"verb": "GET", "query": {"a": "1"}, "body": ""}
        got = await message.put("/thing", {"b": 2})
        assert got == {"verb": "PUT", "query": {}, "body": '{"b":2}'}
        assert (await message.delete("/thing"))["verb"] == "DELETE"
        assert await message.get("/nothing") is None
        with pytest.raises(trio_rpc.RpcError, match="oh no"):
            await message.get("/broken")
        with pytest.raises(trio_rpc.MethodNotFound):
            await message.get("/nowhere")


async def test_a_gateway_that_is_mounted(scanner):
    gateway = Gateway(scanner)
    app = Starlette(routes=[Mount("/rpc", gateway)], lifespan=lambda _: gateway.run())
    async with hosting(app) as url:
        message = Message("localhost", int(url.rpartition(":")[2]), path="/rpc")
        async with message.connect():
            assert await message.post("scan", {"count": 1}, {"found": print}) == {"count": 1}


async def test_public_functions_are_checkpoints(scanner):  # law 16
    async with gateway_for(scanner) as message, message.connect():
        with trio.testing.assert_checkpoints():
            await message.post("scan", {"count": 0}, {"found": print})
        with trio.CancelScope() as scope:
            scope.cancel()
            await message.post("scan", {"count": 0}, {"found": print})
        assert scope.cancelled_caught
        assert scanner.calls == 1


def session() -> ClientSession:
    return ClientSession({"type": "uuid", "uuid": "c", "window": 8}, lambda: None)


def callback(number: int, request: str = "r") -> str:
    return json.dumps({"type": "callback", "request_uuid": request, "seq": number, "a": 1})


def test_a_message_that_is_missing_is_noticed_and_one_that_comes_twice_is_not_told_twice():
    one = session()
    one.posting()
    call = one.started("r")
    one.hear(callback(1))
    one.hear(callback(1))
    one.hear(f"[{callback(1)},{callback(2)}]")
    assert len(call._queue) == 2
    with pytest.raises(trio_rpc.RemoteProtocolError, match="message 3"):
        one.hear(callback(4))
    for nonsense in ("no JSON", b"\xff"):
        with pytest.raises(trio_rpc.RemoteProtocolError, match="invalid JSON"):
            one.hear(nonsense)
    one.hear("[1, {}]")


def test_what_is_said_of_a_call_is_said_again_after_a_reconnection():
    one = session()
    one.posting()
    call = one.started("r")
    for number in range(1, 5):
        one.hear(callback(number))
        call.handled()
    call._next = 4
    call.cancel("enough")
    said = [json.loads(text) for text in one.news()]
    assert said == [
        {"type": "handled", "count": 4, "request_uuid": "r"},
        {"type": "cancel", "reason": "enough", "request_uuid": "r"},
    ]
    assert one.news() == []
    one.resumed()
    assert [json.loads(text) for text in one.news()] == said


def test_race_a_post_that_is_answered_when_the_session_is_lost_already_fails_as_the_others_do():
    one = session()
    one.posting()
    one.lose(lambda: trio_rpc.SessionBroken("session lost"))
    call = one.started("r")
    assert isinstance(call.end, trio_rpc.SessionBroken)
    assert call.ended.is_set()
    assert one.calls == {}
    with pytest.raises(trio_rpc.SessionBroken, match="session lost"):
        one.raise_if_lost(trio_rpc.Refused("by another server"))


@pytest.mark.parametrize("is_before", [True, False])
def test_a_call_knows_whether_callbacks_were_not_run(is_before):
    one = session()
    one.posting()
    call = one.started("r")
    if not is_before:
        call.cancel("enough")
    one.hear(callback(1))
    call.cancel("enough")
    one.hear('{"type": "finish", "request_uuid": "r", "seq": 2}')
    assert call.is_cut
    assert call.end["type"] == "finish"


def test_what_is_held_is_bounded():
    one = session()
    one.posting()
    for number in range(1, MAX_HELD + 1):
        one.hear(callback(number))
    with pytest.raises(trio_rpc.RemoteProtocolError, match="too many messages"):
        one.hear(callback(MAX_HELD + 1))
    one.posted()
    assert one._held == {}


def test_acknowledgements_come_now_and_then():
    one = session()
    one.posting()
    one.started("r")
    for number in range(1, 64):
        one.hear(callback(number))
    assert one.news() == []
    one.hear(callback(64))
    assert [json.loads(text) for text in one.news()] == [{"type": "ack", "seq": 64}]
    one.hear(json.dumps({"type": "finish", "request_uuid": "r", "seq": 65, "x": "y" * 40_000}))
    assert [json.loads(text) for text in one.news()] == [{"type": "ack", "seq": 65}]
    one.hear('{"type": "ping"}')
    assert [json.loads(text)["type"] for text in one.news()] == ["pong"]


@pytest.mark.parametrize(
    "host",
    [
        "http://localhost",
        "ws://localhost/",
        "localhost/rpc",
        "localhost:8000",
        "[::1]:8000",
        "",
        "a b",
    ],
)
def test_a_host_that_is_a_url_or_has_a_port_is_refused_when_a_client_is_made(host):
    with pytest.raises(ValueError, match="host must be a name or an address alone"):
        Message(host, 8000)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "::1", "xn--bcher-kva.example", "bücher.example"]
)
def test_a_host_is_a_name_or_an_address(host):
    Message(host, 8000)
