"""Calls through a gateway served by hypercorn on loopback, message by message."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx
import pytest
import trio
from helpers.gateway_tools import browsing, closed_with, hosting, resuming, websocket
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits, call_back, outlives


@dataclass
class Point:
    x: int
    y: int


def _traced(function):
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    wrapper.__name__ = function.__name__
    return wrapper


class Scanner:
    """The service that a browser's page calls."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.ended = trio.Event()
        self.go_on = trio.Event()
        self.raised: list[BaseException] = []

    @trio_rpc.method
    async def scan(
        self,
        count: int,
        found: Callable[[int], Awaitable[None]],
        progress: Callable[[float], Awaitable[None]],
    ) -> dict[str, int]:
        for number in range(count):
            await found(number)
        await progress(1.0)
        return {"count": count}

    @trio_rpc.method
    async def scan_in_thread(self, count: int, found: Callable[[int], Awaitable[None]]) -> int:
        def work() -> int:
            for number in range(count):
                trio.from_thread.run(found, number)
            return count

        return await trio.to_thread.run_sync(work)

    @trio_rpc.method
    async def steps(self, found: Callable[[str], Awaitable[None]]) -> str:
        await found("first")
        self.started.set()
        await self.go_on.wait()
        await found("second")
        return "done"

    @trio_rpc.method
    async def hold(self) -> None:
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()

    @trio_rpc.method
    async def fail(self) -> None:
        raise LookupError("not here")

    @trio_rpc.method
    async def fail_as_it_is_cancelled(self) -> None:
        async def stubborn() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stubborn)
            await trio.lowlevel.checkpoint()
            self.started.set()

    @trio_rpc.method
    async def together(
        self, found: Callable[[int], Awaitable[None]], progress: Callable[[float], Awaitable[None]]
    ) -> None:
        await call_back(found=1, progress=0.5)

    @trio_rpc.method
    async def maybe(self, found: Callable[[int], Awaitable[None]] | None = None) -> bool:
        return found is not None

    @trio_rpc.method
    async def call_twice(self, found: Callable[[int], Awaitable[None]]) -> str:
        await found(1)
        self.started.set()
        await self.go_on.wait()
        try:
            await found(2)
        except trio_rpc.RemoteError as exc:
            return str(exc)
        return "nothing"

    @trio_rpc.method
    async def keep_callback(self, found: Callable[[int], Awaitable[None]]) -> None:
        self.kept = found

    @trio_rpc.method
    async def many_arguments(self, found: Callable[..., Awaitable[None]]) -> None:
        await found()
        await found(1, 2)
        await found(x=1, y=2)
        await found(Point(3, 4))

    @trio_rpc.method
    async def unsendable_callback(self, found: Callable[..., Awaitable[None]]) -> str:
        try:
            await found(object())
        except TypeError as exc:
            return str(exc)
        return "sent"

    @trio_rpc.method
    async def result(self, kind: str) -> object:
        return {
            "none": None,
            "number": 7,
            "list": [1, 2],
            "empty": {},
            "object": {"a": 1},
            "reserved": {"type": "x"},
            "payload": {"payload": 1},
            "class": Point(1, 2),
            "object()": object(),
            "surrogate": "\ud800",
        }[kind]

    @trio_rpc.method
    @outlives
    async def long(self) -> str:
        self.started.set()
        await self.go_on.wait()
        return "collected"

    @trio_rpc.method
    def plain(self, a: int) -> int:
        return a + 1

    @trio_rpc.method
    def later(self, a: int) -> Awaitable[int]:
        async def add() -> int:
            await trio.lowlevel.checkpoint()
            return a + 1

        return add()

    @trio_rpc.method
    @_traced
    async def traced(self, a: int) -> int:
        return a + 1

    @trio_rpc.method
    async def whoami(self) -> str:
        return trio_rpc.current_call().method

    @trio_rpc.stream
    async def ticks(self):
        yield 1


@pytest.fixture
def scanner():
    return Scanner()


async def test_a_call_starts_calls_back_and_finishes(
    scanner,
):
    """A page calls a function of the server, which calls it back while it runs.

    HTTP starts the call, and a WebSocket carries its callbacks and its end. A worker sends a
    callback by calling a function, and the finish message by returning. A message callback has
    the request_uuid and intermediate results. The start answer has the type, the request_uuid,
    a text and the names of the callbacks. The server declares the callbacks of a method before
    it starts. Finish is delivered after all callbacks of its call.
    """
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        answer = (await browser.post("scan", count=2)).json()
        request = answer.pop("request_uuid")
        assert answer == {
            "type": "start",
            "message": "scan has been started",
            "callbacks": ["found", "progress"],
        }
        callbacks, end = await browser.until_end(request)
        assert [(list(each)[2], *list(each.values())[2:]) for each in callbacks] == [
            ("found", 0, 1),
            ("found", 1, 2),
            ("progress", 1.0, 3),
        ]
        assert end == {"type": "finish", "request_uuid": request, "count": 2, "seq": 4}


async def test_the_answer_to_a_post_does_not_wait_for_the_work(scanner):
    """The HTTP answer has the request_uuid, and does not wait for the work."""
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        answer = (await browser.post("steps")).json()
        assert answer["type"] == "start"
        await scanner.started.wait()
        scanner.go_on.set()
        _, end = await browser.until_end(answer["request_uuid"])
        assert end["payload"] == "done"


@pytest.mark.parametrize("name", ["plain", "later", "traced"])
async def test_plain_and_wrapped_methods_can_be_called(scanner, name):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        _, end = await browser.until_end(await browser.start(name, a=1))
        assert end["payload"] == 2


async def test_ids_and_tokens_are_made_by_the_gateway(scanner):
    """A connection has a client_id and a call a request_uuid, both UUIDs made by the server.

    The client opens the WebSocket, and the first message tells it the client_id. The message
    uuid follows the opening of the WebSocket at once.
    """
    async with hosting(Gateway(scanner)) as url, websocket(url) as ws:
        hello = json.loads(await ws.get_message())
        assert list(hello)[:2] == ["type", "uuid"]
        assert hello["type"] == "uuid"
        async with browsing(url) as browser:
            request = await browser.start("plain", a=1)
            ids = {hello["uuid"], hello["token"], browser.id, browser.token, request}
            assert len(ids) == 5
            for each in (hello["uuid"], browser.id, request):
                assert str(uuid.UUID(each)) == each


@pytest.mark.parametrize("count", [0, 1, 100])
async def test_a_callback_may_be_called_any_number_of_times(scanner, count):
    """The callbacks of a call run in the order in which they were sent.

    A callback may be called any number of times, or never.
    """
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        callbacks, end = await browser.until_end(await browser.start("scan", count=count))
        assert [each.get("found") for each in callbacks] == [*range(count), None]
        assert end["count"] == count


async def test_a_legacy_client_can_make_a_call(scanner):
    """The name of a callback is a key of its message, as existing clients expect."""
    async with hosting(Gateway(scanner, legacy_clients=True)) as url:
        async with websocket(url, "") as ws, httpx.AsyncClient() as http:
            name = json.loads(await ws.get_message())["uuid"]
            start = await http.post(f"{url}/api/scan/{name}", json={"count": 3})
            request = start.json()["request_uuid"]
            got = [json.loads(await ws.get_message()) for _ in range(5)]
            assert [each.get("found") for each in got[:3]] == [0, 1, 2]
            assert got[3]["progress"] == 1.0
            assert {**got[4], "seq": None} == {
                "type": "finish",
                "request_uuid": request,
                "count": 3,
                "seq": None,
            }


async def test_the_calls_of_a_legacy_client_end_with_its_connection(scanner):
    async with hosting(Gateway(scanner, legacy_clients=True)) as url:
        async with browsing(url, "") as browser:
            await browser.start("hold")
            await scanner.started.wait()
        await scanner.ended.wait()


@pytest.mark.parametrize(
    ("method", "data", "code"),
    [("fail", {}, "raised"), ("result", {"kind": "surrogate"}, "internal")],
)
async def test_a_legacy_client_gets_a_failure_as_a_finish_message(scanner, method, data, code):
    async with hosting(Gateway(scanner)) as url, browsing(url, "") as browser:
        request = await browser.start(method, **data)
        answer = await browser.next()
        assert (answer["type"], answer["request_uuid"], answer["code"]) == ("finish", request, code)
        assert answer["error"]


async def test_a_legacy_client_gets_a_deadline_as_a_finish_message(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url, "") as browser:
        await browser.post("hold", headers={"Trio-Rpc-Timeout": "0.01"})
        answer = await browser.next()
        assert (answer["type"], answer["code"]) == ("finish", "deadline")


async def test_an_exception_of_a_handler_ends_its_call_with_an_error(scanner):
    """An exception of the server's task reaches the caller as an error."""
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        request = await browser.start("fail")
        assert await browser.next() == {
            "type": "error",
            "request_uuid": request,
            "error": "not here",
            "code": "raised",
            "error_type": "builtins.LookupError",
            "seq": 1,
        }
        _, end = await browser.until_end(await browser.start("plain", a=1))
        assert end["payload"] == 2


async def test_error_detail_none_hides_the_text_of_an_error(scanner):
    gateway = Gateway(scanner, error_detail="none")
    async with hosting(gateway) as url, browsing(url) as browser:
        await browser.start("fail")
        assert "not here" not in json.dumps(await browser.next())


async def test_a_cancel_is_confirmed_once_the_handler_has_ended(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        request = await browser.start("hold")
        await scanner.started.wait()
        await browser.send("cancel", request_uuid=request, reason="enough")
        end = await browser.next()
        assert (end["type"], end["code"]) == ("error", "cancelled")
        assert scanner.ended.is_set()
        await browser.send("cancel", request_uuid=request)  # again, without effect
        await browser.send("cancel", request_uuid="nobody's")
        await browser.send("ping", id=7)
        assert await browser.next() == {"type": "pong", "id": 7}


async def test_law_7_a_handler_that_fails_while_it_is_cancelled_does_not_affect_others(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        request = await browser.start("fail_as_it_is_cancelled")
        await scanner.started.wait()
        await browser.send("cancel", request_uuid=request)
        end = await browser.next()
        assert (end["type"], end["code"]) == ("error", "raised")
        async with browsing(url) as other:
            await other.start("fail_as_it_is_cancelled")
        await browser.start("plain", a=1)
        assert (await browser.next())["payload"] == 2


async def test_a_handler_that_fails_after_its_client_has_left_does_not_affect_others(scanner):
    limits = GatewayLimits(grace=0.01)
    async with hosting(Gateway(scanner, limits=limits)) as url, browsing(url) as browser:
        async with browsing(url) as other:
            await other.start("fail_as_it_is_cancelled")
            await scanner.started.wait()
        other.http = browser.http
        while (await other.post("plain", a=1)).status_code != 410:
            pass
        await browser.start("plain", a=1)
        assert (await browser.next())["payload"] == 2


BAD_SECONDS = ["soon", "1_0", "nan", "inf", "infinity", "-1", "+1", "1e999", "0x1", ".", "e5", ""]


async def test_the_timeout_header_sets_the_handlers_deadline(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        await browser.post("hold", headers={"Trio-Rpc-Timeout": "0.5"})
        end = await browser.next()
        assert (end["type"], end["code"]) == ("error", "deadline")
        assert scanner.ended.is_set()
        for text in BAD_SECONDS:
            bad = await browser.post("hold", headers={"Trio-Rpc-Timeout": text})
            assert bad.status_code == 400
        for text in ("0", "0.", ".0", "0e5", "1e-9999"):
            await browser.post("hold", headers={"Trio-Rpc-Timeout": text})
            assert (await browser.next())["code"] == "deadline"


async def test_a_thread_of_a_handler_can_call_back(scanner):
    """The work may run in a thread, which may send callbacks."""
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        callbacks, end = await browser.until_end(await browser.start("scan_in_thread", count=20))
        assert [each["found"] for each in callbacks] == list(range(20))
        assert end["payload"] == 20


async def test_several_callbacks_may_be_called_by_one_message(scanner):
    """One message may call several callbacks by name."""
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        [message], _ = await browser.until_end(await browser.start("together"))
        assert (message["found"], message["progress"]) == (1, 0.5)
    with pytest.raises(RuntimeError, match="no call from a gateway"):
        await call_back(found=1)


async def test_the_arguments_of_a_callback_are_its_payload(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        callbacks, _ = await browser.until_end(await browser.start("many_arguments"))
        payloads = [each["found"] for each in callbacks]
        assert payloads == [None, [1, 2], {"x": 1, "y": 2}, {"x": 3, "y": 4}]


async def test_a_callbacks_argument_that_cannot_be_sent_raises_at_the_handler(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        callbacks, end = await browser.until_end(await browser.start("unsendable_callback"))
        assert callbacks == []
        assert end["payload"] == "a value of type object cannot be sent as JSON"


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        ("none", {}),
        ("number", {"payload": 7}),
        ("list", {"payload": [1, 2]}),
        ("empty", {"payload": {}}),
        ("object", {"a": 1}),
        ("reserved", {"payload": {"type": "x"}}),
        ("payload", {"payload": {"payload": 1}}),
        ("class", {"x": 1, "y": 2}),
    ],
)
async def test_results_are_the_payload_of_finish(scanner, kind, rest):
    """A message finish ends a call, with or without a payload; it comes exactly once, and last."""
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        request = await browser.start("result", kind=kind)
        finish = {"type": "finish", "request_uuid": request, "seq": 1}
        assert await browser.next() == {**finish, **rest}
        await browser.send("ping", id=1)
        assert await browser.next() == {"type": "pong", "id": 1}  # nothing comes in between


@pytest.mark.parametrize("kind", ["object()", "surrogate"])
async def test_a_result_that_is_not_json_is_an_error_of_its_call(scanner, kind):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        await browser.start("result", kind=kind)
        end = await browser.next()
        assert (end["type"], end["code"]) == ("error", "internal")
        assert "the result of result cannot be sent" in end["error"]


async def test_callbacks_that_the_client_lacks_are_skipped_with_one_warning(scanner, caplog):
    """A callback that is sent and that the client has not given is skipped, with one warning."""
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        headers = {"Trio-Rpc-Callbacks": "progress"}
        answer = await browser.post("scan", headers=headers, count=3)
        with caplog.at_level(logging.WARNING, "trio_rpc.gateway"):
            callbacks, _ = await browser.until_end(answer.json()["request_uuid"])
        assert len(callbacks) == 1
        assert [record.getMessage() for record in caplog.records] == [
            "scan called the callback 'found', which its client did not provide"
        ]


async def test_an_optional_callback_that_the_client_lacks_is_none(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        for names, given in (("", False), ("found", True)):
            await browser.post("maybe", headers={"Trio-Rpc-Callbacks": names})
            assert (await browser.next())["payload"] is given


async def test_the_error_of_a_callback_is_raised_at_its_next_use(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        request = await browser.start("call_twice")
        await browser.next()
        await scanner.started.wait()
        await browser.send("callback_error", request_uuid=request, name="found", error="Oh")
        await browser.send("callback_error", request_uuid=request, name="__class__", error="Oh")
        await browser.send("ping")
        assert (await browser.next())["type"] == "pong"
        scanner.go_on.set()
        callbacks, end = await browser.until_end(request)
        assert callbacks == []
        assert end["payload"] == "Error: found: Oh"


async def test_law_8_a_callback_can_be_called_only_until_its_call_ends(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        await browser.until_end(await browser.start("keep_callback"))
        with pytest.raises(trio_rpc.LocalProtocolError, match="lives only until"):
            await scanner.kept(1)


async def test_filters_and_current_call_work_for_browsers_calls(scanner):
    seen = []

    async def audit(call, proceed):
        seen.append((call.method, dict(call.kwargs)))
        return await proceed()

    async with hosting(Gateway({"a": scanner}, filters=[audit])) as url, browsing(url) as browser:
        await browser.start("a.whoami")
        assert (await browser.next())["payload"] == "a.whoami"
        assert seen == [("a.whoami", {})]


async def test_a_call_from_a_browser_has_no_session(scanner):
    seen = []

    async def look(call, proceed):
        seen.append(call)
        return await proceed()

    async with hosting(Gateway(scanner, filters=[look])) as url, browsing(url) as browser:
        await browser.until_end(await browser.start("whoami"))
    [call] = seen
    assert (call.session_or_none, call.metadata, call.method) == (None, {}, "whoami")
    assert repr(call) == "<trio_rpc.Call whoami on a gateway>"
    with pytest.raises(RuntimeError, match="was called by a browser, which has no session"):
        call.session  # noqa: B018 - the lookup raises
    with pytest.raises(RuntimeError, match="not called in a remote scope"):
        call.nursery  # noqa: B018


async def test_messages_of_several_clients_and_calls_are_not_mixed_up(scanner):
    """The server has a table of the connected clients by client_id.

    Several clients have several calls at once, and their messages never cross.
    """

    async def use(count: int) -> None:
        async with browsing(url) as browser:
            requests = [await browser.start("scan", count=count + i) for i in range(3)]
            got = {request: [] for request in requests}
            ends = {}
            while len(ends) < 3:
                message = await browser.next()
                if message["type"] == "finish":
                    ends[message["request_uuid"]] = message["count"]
                elif "found" in message:
                    got[message["request_uuid"]].append(message["found"])
            for i, request in enumerate(requests):
                assert got[request] == list(range(count + i))
                assert ends[request] == count + i

    async with hosting(Gateway(scanner)) as url, trio.open_nursery() as nursery:
        for count in (5, 10, 15):
            nursery.start_soon(use, count)


async def test_a_reconnecting_client_gets_missed_messages_in_order_exactly_once(scanner):
    """A client that reconnects keeps its client_id and gets the messages that it missed."""
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        request = await browser.start("steps")
        assert (await browser.next())["found"] == "first"
        await browser.ws.aclose()
        scanner.go_on.set()
        async with resuming(browser) as first:
            assert first == {"type": "resumed", "uuid": browser.id}
            callbacks, end = await browser.until_end(request)
            assert [each["found"] for each in callbacks] == ["second"]
            assert end["payload"] == "done"
        async with resuming(browser, seq=1):
            callbacks, _ = await browser.until_end(request)
            assert [each["found"] for each in callbacks] == ["second"]


async def test_a_newer_connection_replaces_the_older_one(scanner):
    """A session has one live connection: a newer one replaces the older one."""
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        request = await browser.start("steps")
        await browser.next()
        older = browser.ws
        async with resuming(browser):
            assert await closed_with(older) == 4409
            scanner.go_on.set()
            callbacks, _ = await browser.until_end(request)
            assert len(callbacks) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"token": "wrong"},
        {"uuid": "nobody"},
        {"seq": 99},
        {"seq": -1},
        {"seq": "1"},
        {"type": "hi"},
    ],
)
async def test_a_resume_that_is_not_possible_is_answered_with_lost(scanner, changes):
    """A client that cannot get missed messages is told that they are lost."""
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        kind = changes.get("type", "resume")
        async with websocket(url, "resume=1") as ws:
            answer = {"uuid": browser.id, "token": browser.token, "seq": 0, **changes, "type": kind}
            await ws.send_message(json.dumps(answer))
            assert json.loads(await ws.get_message())["type"] == "lost"
            assert await closed_with(ws) == 4404
        await browser.start("plain", a=1)  # the real client is not affected
        assert (await browser.next())["payload"] == 2


async def test_a_resume_that_is_not_json_closes_the_websocket(scanner):
    async with hosting(Gateway(scanner)) as url:
        for invalid in (b"\xff\x00", "no JSON", "[]"):
            async with websocket(url, "resume=1") as ws:
                await ws.send_message(invalid)
                assert await closed_with(ws) == 4404


async def test_invalid_messages_from_a_client_are_ignored(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        for invalid in (
            "no JSON",
            b"\x00\xff",
            "[1]",
            '{"type":"cancel"}',
            '{"type":["x"]}',
            "{}",
        ):
            await browser.ws.send_message(invalid)
        await browser.send("ack", seq=10**30)
        await browser.send("ack", seq=True)
        await browser.send("handled", request_uuid="x", count=-1)
        await browser.send("ping", id=1, more="keys")
        assert await browser.next() == {"type": "pong", "id": 1}


async def test_the_calls_of_a_client_that_stays_disconnected_are_cancelled(scanner):
    """The server keeps reading the WebSocket, and notices that a client has disconnected.

    The task of a client that has left is cancelled, and its sends do not crash it.
    """
    limits = GatewayLimits(grace=0.05)
    async with hosting(Gateway(scanner, limits=limits)) as url, browsing(url) as browser:
        await browser.start("hold")
        await scanner.started.wait()
        browser.cut()
        await scanner.ended.wait()
        while (gone := await browser.post("plain", a=1)).status_code == 200:
            pass
        assert gone.status_code == 410
        async with resuming(browser) as first:
            assert first["type"] == "lost"


async def test_a_client_that_sends_bye_is_ended_at_once(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        await browser.start("hold")
        await scanner.started.wait()
        await browser.send("bye")
        assert await closed_with(browser.ws) == 1001
        await scanner.ended.wait()


async def test_the_result_of_a_call_that_outlives_its_client_can_be_collected(scanner):
    """Work started by a page may outlive its connection, and its result is fetched by its id."""
    limits = GatewayLimits(grace=0.01)
    async with hosting(Gateway(scanner, limits=limits)) as url, browsing(url) as browser:
        request = await browser.start("long")
        await scanner.started.wait()
        await browser.send("bye")
        await closed_with(browser.ws)
        headers = {"Trio-Rpc-Token": browser.token}
        running = await browser.http.get(f"/api/result/{request}", headers=headers)
        assert (running.status_code, running.json()["type"]) == (202, "running")
        scanner.go_on.set()
        while (got := await browser.http.get(f"/api/result/{request}", headers=headers)).is_success:
            if got.status_code == 200:
                break
        assert got.json() == {"type": "finish", "request_uuid": request, "payload": "collected"}
        for path, with_headers, status in (
            ("nobody", headers, 404),
            (request, {}, 401),
            (request, {"Trio-Rpc-Token": "wrong"}, 403),
        ):
            got = await browser.http.get(f"/api/result/{path}", headers=with_headers)
            assert got.status_code == status


async def test_a_repeated_request_with_the_same_key_starts_one_call(scanner):
    async with hosting(Gateway(scanner)) as url, browsing(url) as browser:
        headers = {"Idempotency-Key": "k1"}
        first = await browser.post("hold", headers=headers)
        again = await browser.post("hold", headers=headers)
        other = await browser.post("hold", headers={"Idempotency-Key": "k2"})
        assert first.json() == again.json()
        assert first.json()["request_uuid"] != other.json()["request_uuid"]


async def test_a_post_without_a_websocket_is_answered_with_the_result(scanner):
    async with hosting(Gateway(scanner)) as url, httpx.AsyncClient(base_url=url) as http:
        got = await http.post("/api/plain", json={"a": 4})
        assert (got.status_code, got.json()["payload"]) == (200, 5)
        got = await http.post("/api/fail", json={})
        assert (got.status_code, got.json()["error"]) == (500, "not here")
        got = await http.post("/api/maybe", json={})
        assert got.json()["payload"] is False
        got = await http.post("/api/scan", json={"count": 1})
        assert (got.status_code, "WebSocket" in got.json()["error"]) == (422, True)


async def test_closing_the_connection_of_a_post_without_a_websocket_cancels_the_call(scanner):
    async with hosting(Gateway(scanner)) as url, httpx.AsyncClient(base_url=url) as http:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: http.post("/api/hold", json={}))
            await scanner.started.wait()
            nursery.cancel_scope.cancel()
        await scanner.ended.wait()


async def test_the_end_of_the_gateway_ends_its_connections_and_calls(scanner):
    """When the server shuts down, it ends all connections of clients."""
    gateway = Gateway(scanner)
    async with trio.open_nursery() as nursery:
        running = await nursery.start(run_until_cancelled, gateway)
        async with hosting(gateway) as url, browsing(url) as browser:
            await browser.start("hold")
            await scanner.started.wait()
            running.cancel()
            assert await closed_with(browser.ws) == 1001
            await scanner.ended.wait()
            assert (await browser.post("plain", a=1)).status_code == 503


async def run_until_cancelled(gateway, task_status):
    with trio.CancelScope() as scope:
        async with gateway.run():
            task_status.started(scope)
            await trio.sleep_forever()


async def test_the_end_of_the_gateway_ends_calls_without_a_websocket(scanner):
    gateway = Gateway(scanner)
    async with trio.open_nursery() as nursery:
        running = await nursery.start(run_until_cancelled, gateway)
        async with hosting(gateway) as url, httpx.AsyncClient(base_url=url) as http:
            answers = []

            async def hold():
                answers.append(await http.post("/api/hold", json={}))

            async with trio.open_nursery() as posts:
                posts.start_soon(hold)
                await scanner.started.wait()
                running.cancel()
            assert scanner.ended.is_set()
            assert answers[0].status_code == 500
            assert gateway.works == 0


async def test_draining_waits_for_running_calls_and_refuses_new_ones(scanner):
    gateway = Gateway(scanner)
    async with hosting(gateway) as url, browsing(url) as browser:
        request = await browser.start("steps")
        await scanner.started.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.drain)
            await trio.testing.wait_all_tasks_blocked()
            assert (await browser.post("plain", a=1)).status_code == 503
            assert gateway.works == 1
            scanner.go_on.set()
        callbacks, end = await browser.until_end(request)
        assert (len(callbacks), end["payload"]) == (2, "done")


async def test_a_gateway_may_be_mounted_beside_ordinary_routes(scanner):
    """The server can be mounted in an HTTP server that also serves ordinary routes."""
    gateway = Gateway(scanner)

    async def hello(request):
        return PlainTextResponse("hello")

    host = Starlette(
        routes=[Route("/hello", hello), Mount("/rpc", gateway)], lifespan=lambda _: gateway.run()
    )
    async with hosting(host) as url:
        async with browsing(f"{url}/rpc") as browser:
            assert (await browser.http.get(f"{url}/hello")).text == "hello"
            _, end = await browser.until_end(await browser.start("scan", count=1))
            assert end["count"] == 1


async def test_message_js_is_served(scanner):
    async with hosting(Gateway(scanner)) as url, httpx.AsyncClient(base_url=url) as http:
        module = await http.get("/message.js")
        assert module.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert "export class Message extends" in module.text
        assert "import " not in module.text.replace("*     import {", "")  # it has no dependencies
        assert "export class Message extends" in (await http.get("/message.d.ts")).text


async def test_a_gateway_mounted_without_a_lifespan_says_what_to_do(scanner, caplog):
    host = Starlette(routes=[Mount("/rpc", Gateway(scanner))])
    async with hosting(host) as url, httpx.AsyncClient() as http:
        got = await http.post(f"{url}/rpc/api/plain", json={"a": 1})
        assert got.status_code == 503
        assert "async with gateway.run()" in got.json()["error"]
        assert "async with gateway.run()" in caplog.text


async def test_a_gateway_runs_once_at_a_time(scanner):
    gateway = Gateway(scanner)
    async with gateway.run():
        with pytest.raises(RuntimeError, match="already running"):
            async with gateway.run():
                pass
    async with gateway.run():
        pass


def test_reserved_names_cannot_be_callbacks():
    class Bad:
        @trio_rpc.method
        async def scan(self, payload: Callable[[], Awaitable[None]]) -> None: ...

    with pytest.raises(TypeError, match="'payload' cannot be the name of a callback"):
        Gateway(Bad())


def test_limits_are_positive():
    with pytest.raises(ValueError, match="grace"):
        GatewayLimits(grace=0)
