"""The Python client against a gateway over real sockets, with a proxy that can cut them."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing
from helpers.gateway_tools import hosting, hosting_on_trio, until_it_fails
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

import trio_rpc
from trio_rpc.errors import Fate
from trio_rpc.gateway import Gateway, GatewayLimits, Message
from trio_rpc.gateway.client import message as client
from trio_rpc.gateway.client.session import MAX_HELD, ClientSession
from trio_rpc.testing import ChaosProxy, Faults, open_chaos_proxy


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Fickle(list):
    def __iter__(self):
        raise Wordless


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
    async def fickle(self) -> list[int]:
        return Fickle([1])

    @trio_rpc.method
    async def ask(self, found: Callable[[int], Awaitable[bool]]) -> str:
        try:
            await found(1)
        except trio_rpc.RemoteError as exc:
            return str(exc)
        return "no error"

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
    """The client is made from a host and a port.

    Connecting opens the WebSocket, and is done when the client_id is known. A post sends the
    request and returns the payload of the finish message. The callbacks are functions given
    with the call, several by name, sync or async.
    """
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


async def test_the_connection_is_opened_when_needed_and_closed_when_unused(scanner):
    """The connection is opened at first need, and closed when no call needs it."""
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


async def test_the_connection_stays_open_for_a_call_that_outlives_the_block(scanner):
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


async def test_a_post_without_callbacks_opens_no_websocket(scanner):
    """A post without callbacks works without a WebSocket."""
    async with through_a_proxy(scanner) as (message, proxy):
        assert await message.post("budget") > 10
        assert message.client_id is None
        assert proxy.accepted == 1
        with pytest.raises(trio_rpc.RemoteError, match="not here"):
            await message.post("fail")
        with trio.fail_after(9):
            assert 5 < await message.post("budget") <= 9
        with pytest.raises(trio_rpc.InvalidArguments):
            await message.post("scan", {"count": 1})  # it requires callbacks


async def test_an_exception_of_a_handler_is_raised_at_the_client(scanner):
    async with gateway_for(scanner) as message, message.connect():
        with pytest.raises(trio_rpc.RemoteError) as caught:
            await message.post("fail")
        assert caught.value.type_name == "builtins.LookupError"
        assert caught.value.message == "not here"


async def test_an_exception_without_text_ends_its_call_or_its_callback_and_nothing_else(scanner):
    def found(_number):
        raise Wordless

    async with gateway_for(scanner) as message, message.connect():
        for method in ("ask", "tell"):
            text = await message.post(method, {}, callbacks={"found": found})
            assert "Wordless: <str() of Wordless failed>" in text
        with pytest.raises(trio_rpc.RemoteError, match="the result of fickle cannot be sent"):
            await message.post("fickle", {})


async def test_refusals_are_raised_as_their_classes(scanner):
    """A refusal has an error and no request_uuid, and is raised with that text at the caller.

    A failed HTTP request raises at the caller: its status, a refusal, an unreachable server.
    """
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


async def test_law_2_cancelling_a_post_cancels_the_handler_and_waits_for_its_end(scanner):
    """A call may have a timeout and may be cancelled, which cancels the server's task."""
    async with gateway_for(scanner) as message, message.connect():
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(message.post, "hold")
                await scanner.started.wait()
                scope.cancel()
        assert scanner.ended.is_set()


async def test_cancelling_the_block_of_the_connection_cancels_its_handlers(scanner):
    async with gateway_for(scanner) as message:
        with trio.CancelScope() as scope:
            async with message.connect(), trio.open_nursery() as nursery:
                nursery.start_soon(message.post, "hold")
                await scanner.started.wait()
                scope.cancel()
        assert scanner.ended.is_set()
        assert message.state == "closed"


async def test_a_cancelled_callback_cancels_the_handler(scanner):
    async with gateway_for(scanner) as message, message.connect():
        with trio.CancelScope() as scope:

            async def found(number):
                scope.cancel()
                await trio.sleep_forever()

            await message.post("hold", {}, {"found": found})
        assert scope.cancelled_caught
        assert scanner.ended.is_set()


async def test_a_fatal_exception_of_a_callback_cancels_the_handler(scanner):
    async with gateway_for(scanner) as message, message.connect():

        def found(number):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await message.post("hold", {}, {"found": found})
        assert scanner.ended.is_set()


async def test_a_result_that_won_the_race_is_returned(scanner):
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


async def test_a_result_is_dropped_if_its_callbacks_did_not_all_run(scanner):
    """A local call would have ended at its callback."""
    async with gateway_for(scanner) as message, message.connect():
        results = []
        with trio.CancelScope() as scope:

            async def found(number):
                await scanner.finished.wait()  # all messages have arrived, including the result
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

            results.append(await message.post("scan", {"count": 9}, {"found": found}))
        assert scope.cancelled_caught
        assert results == []


async def test_law_5_deadlines_travel_and_a_caller_sees_its_own_cancellation(scanner):
    async with gateway_for(scanner) as message, message.connect():
        with trio.fail_after(9):
            assert 5 < await message.post("budget") <= 9
        with trio.move_on_after(0.1) as scope:
            await message.post("hold")
        assert scope.cancelled_caught
        assert scanner.ended.is_set()


async def test_the_wait_for_the_confirmation_of_a_cancel_is_bounded_by_cancel_grace(scanner):
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
    """A callback that raises is reported, and neither the connection nor other calls end."""
    async with gateway_for(scanner) as message, message.connect():

        def found(number):
            raise ValueError("cannot show it")

        result = await message.post("tell", {}, {"found": found})
        assert result == "Error: found: ValueError: cannot show it"
    assert "the callback 'found' failed" in caplog.text


async def test_a_call_of_a_missing_callback_is_skipped_with_one_warning(caplog):
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
    async with hosting_on_trio(app) as url:
        yield Message("127.0.0.1", int(url.rpartition(":")[2]))


async def test_messages_that_overtake_the_response_are_delivered_in_order_after_it():
    """A callback or finish that arrives before the HTTP answer is kept, and runs in order."""
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


async def test_the_client_puts_its_id_into_the_path_and_ignores_unknown_keys():
    """The client library, and not its user, puts the client_id into the path of a POST.

    Messages are JSON text in UTF-8, and unknown keys of messages are ignored.
    """
    paths, posted = [], trio.Event()

    async def start(request):
        paths.append(request.url.path)
        posted.set()
        text = '{"type": "start", "request_uuid": "r", "callbacks": ["found"], "more": {"ö": 1}}'
        return Response(text.encode(), media_type="application/json")

    async def ws(websocket):
        await websocket.accept()
        await websocket.send_text('{"type": "uuid", "uuid": "client-7", "more": [1]}')
        await posted.wait()
        await websocket.send_text('{"type": "news", "request_uuid": "r", "found": 1, "seq": 1}')
        text = '{"type": "callback", "request_uuid": "r", "found": "räder 😀", "seq": 2}'
        await websocket.send_text(text)
        await websocket.send_text('{"type": "finish", "request_uuid": "r", "a": "ß", "seq": 3}')
        await websocket.receive()

    async with fake_gateway(start, ws) as message, message.connect():
        assert message.client_id == "client-7"
        found = []
        assert await message.post("scan", {}, {"found": found.append}) == {"a": "ß"}
        assert found == ["räder 😀"]
        assert message._session.calls == {}
    assert paths == ["/api/scan/client-7"]


async def test_a_callback_is_found_by_the_uuid_of_its_call_and_by_its_name(scanner):
    """The client finds the callback by request_uuid and name, and runs it.

    When the final result has arrived, the call has ended and its entry is removed.
    """
    got = {}

    async def post(count):
        found, shares = got[count] = [], []
        callbacks = {"found": found.append, "progress": shares.append}
        assert await message.post("scan", {"count": count}, callbacks) == {"count": count}

    async with gateway_for(scanner) as message, message.connect():
        async with trio.open_nursery() as nursery:
            for count in range(1, 6):
                nursery.start_soon(post, count)
        assert message._session.calls == {}
    assert got == {count: (list(range(count)), [1.0]) for count in range(1, 6)}


async def test_a_call_that_has_no_caller_is_cancelled():
    """The POST was handled, but its response was lost."""
    received = []

    async def lost(request):
        return Response(status_code=500)

    async def ws(websocket):
        await websocket.accept()
        await websocket.send_json({"type": "uuid", "uuid": "c"})
        text = {"type": "callback", "request_uuid": "r", "found": 1, "seq": 1}
        await websocket.send_json(text)
        received.append(json.loads((await websocket.receive())["text"]))
        done.set()

    done = trio.Event()
    async with fake_gateway(lost, ws) as message, message.connect():
        with pytest.raises(trio_rpc.RpcError, match="500"):
            await message.post("scan", {}, {"found": print})
        await done.wait()
    assert received == [{"type": "cancel", "request_uuid": "r", "reason": "no caller waits for it"}]


async def test_no_message_is_lost_or_repeated_over_five_cuts(scanner):
    """After a lost connection the client connects again by itself.

    After a reconnection calls in flight go on, or fail with a clear error.
    """
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


async def test_messages_may_arrive_byte_by_byte(scanner):
    async with through_a_proxy(scanner, back=Faults(max_slice=1)) as (message, _):
        found = []
        async with message.connect():
            await message.post("scan", {"count": 20}, {"found": found.append})
        assert found == list(range(20))


async def test_a_cancel_without_a_connection_is_sent_after_reconnecting(scanner):
    async with through_a_proxy(scanner) as (message, proxy), message.connect():
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(message.post, "hold")
                await scanner.started.wait()
                proxy.cut()
                scope.cancel()
        assert scanner.ended.is_set()


async def test_the_calls_of_a_session_that_the_gateway_has_forgotten_fail(scanner):
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


async def test_calls_fail_when_the_gateway_cannot_be_reached_within_the_grace_time(
    scanner, monkeypatch
):
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


async def test_an_error_in_connecting_is_raised_at_each_call_that_needs_the_connection(scanner):
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


async def test_a_server_that_is_not_a_gateway_is_an_error():
    async def ws(websocket):
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.receive()

    async with fake_gateway(None, ws) as message:
        with pytest.raises(trio_rpc.RemoteProtocolError, match="not a trio_rpc gateway"):
            async with message.connect():
                pass


async def test_a_post_that_is_repeated_after_a_lost_response_starts_one_call(scanner):
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
    """The client also has helpers for get, put and delete."""

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
        with pytest.raises(trio_rpc.RpcError, match=r"^http://.*/broken was answered 418: oh no$"):
            await message.get("/broken", {"a": 1})
        with pytest.raises(trio_rpc.MethodNotFound, match=r"/nowhere was answered 404: Not Found$"):
            await message.get("/nowhere")
        with pytest.raises(trio_rpc.MethodNotFound, match=r"/api/buy was answered 404: Not Found$"):
            await message.post("buy")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "was answered 404"),
        (b'{"detail":"Not Found"}', 'was answered 404: {"detail":"Not Found"}'),
        (b'{"error":""}', 'was answered 404: {"error":""}'),
        (b"[1]", "was answered 404: [1]"),
        (b"<h1>\nno\x1b</h1>", r"was answered 404: <h1>\nno\x1b</h1>"),
        (b"x" * 1000, f"was answered 404: {'x' * 181}… (1000 characters)"),
    ],
)
async def test_the_refusal_of_another_server_names_the_page_and_quotes_its_text(body, text):
    async def page(_):
        return Response(body, status_code=404)

    async with hosting(Starlette(routes=[Route("/api/buy", page, methods=["POST"])])) as url:
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        with pytest.raises(trio_rpc.MethodNotFound) as caught:
            await message.post("buy")
    assert str(caught.value) == f"{url}/api/buy {text}"


async def test_a_client_can_use_a_mounted_gateway(scanner):
    gateway = Gateway(scanner)
    app = Starlette(routes=[Mount("/rpc", gateway)], lifespan=lambda _: gateway.run())
    async with hosting(app) as url:
        message = Message("localhost", int(url.rpartition(":")[2]), path="/rpc")
        async with message.connect():
            assert await message.post("scan", {"count": 1}, {"found": print}) == {"count": 1}


async def test_law_16_public_functions_of_the_client_are_checkpoints(scanner):
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


def test_a_missing_message_is_an_error_and_a_repeated_one_is_ignored():
    one = session()
    one.posting()
    call = one.started("r")
    one.hear(callback(1))
    one.hear(callback(1))
    one.hear(f"[{callback(1)},{callback(2)}]")
    assert len(call._queue) == 2
    with pytest.raises(trio_rpc.RemoteProtocolError, match="message 3"):
        one.hear(callback(4))
    for invalid in ("no JSON", b"\xff"):
        with pytest.raises(trio_rpc.RemoteProtocolError, match="invalid JSON"):
            one.hear(invalid)
    one.hear("[1, {}]")


def test_the_state_of_a_call_is_sent_again_after_reconnecting():
    one = session()
    one.posting()
    call = one.started("r")
    for number in range(1, 5):
        one.hear(callback(number))
        call.handled()
    call._next = 4
    call.cancel("enough")
    news = [json.loads(text) for text in one.news()]
    assert news == [
        {"type": "handled", "count": 4, "request_uuid": "r"},
        {"type": "cancel", "reason": "enough", "request_uuid": "r"},
    ]
    assert one.news() == []
    one.resumed()
    assert [json.loads(text) for text in one.news()] == news


def test_race_a_post_that_is_answered_after_the_session_was_lost_fails():
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


def test_messages_held_for_a_response_are_bounded():
    one = session()
    one.posting()
    for number in range(1, MAX_HELD + 1):
        one.hear(callback(number))
    with pytest.raises(trio_rpc.RemoteProtocolError, match="too many messages"):
        one.hear(callback(MAX_HELD + 1))
    one.posted()
    assert one._held == {}


def test_acknowledgements_are_sent_after_many_messages_or_bytes():
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
def test_a_host_that_is_a_url_or_has_a_port_is_refused(host):
    with pytest.raises(ValueError, match="host must be a name or an address alone"):
        Message(host, 8000)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "::1", "xn--bcher-kva.example", "bücher.example"]
)
def test_a_host_may_be_a_name_or_an_address(host):
    Message(host, 8000)
