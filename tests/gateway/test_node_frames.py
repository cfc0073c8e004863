"""Messages that no gateway should send, to message.js in Node, and values that JSON hides."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
from helpers import node
from helpers.gateway_tools import hosting_on_trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import trio_rpc
from trio_rpc.gateway import Gateway

pytestmark = node.needs_node

HELLO = {"type": "uuid", "uuid": "c", "token": "t", "grace": 60, "keepalive": 20, "window": 1000}
FINISH = {"type": "finish", "request_uuid": "r", "payload": "done"}

RECONNECTS = "reconnects"
"""The client ends the connection and resumes over another one; the call goes on."""

GOES_ON = "goes on"

FRAMES: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("{", RECONNECTS),
    "nothing": ("", RECONNECTS),
    "bytes": (b"\x00\x01", RECONNECTS),
    "a message left out": (json.dumps({**FINISH, "seq": 3}), RECONNECTS),
    "100,000 arrays in each other": ("[" * 100_000 + "]" * 100_000, GOES_ON),
    "a piece that is not JSON": (
        json.dumps({"type": "piece", "request_uuid": "r", "seq": 1, "text": "{", "last": True}),
        RECONNECTS,
    ),
    "null": ("null", GOES_ON),
    "a number": ("1e400", GOES_ON),
    "a text": ('"finish"', GOES_ON),
    "an array of nothing": ("[]", GOES_ON),
    "an array of other things": ('[1, null, "x", [], true]', GOES_ON),
    "an unknown type": ('{"type": "later", "x": 1}', GOES_ON),
    "a message without a number": (json.dumps({**FINISH, "payload": "early"}), GOES_ON),
    "a number that is text": (json.dumps({**FINISH, "payload": "early", "seq": "1"}), GOES_ON),
    "a number that is a fraction": (
        json.dumps({**FINISH, "payload": "early", "seq": 0.5}),
        GOES_ON,
    ),
    "a message that was sent before": (
        json.dumps({**FINISH, "payload": "early", "seq": 0}),
        GOES_ON,
    ),
    "the end of an unknown call": (json.dumps({**FINISH, "request_uuid": "x", "seq": 1}), GOES_ON),
    "a callback of an unknown call": (
        json.dumps({"type": "callback", "request_uuid": "x", "found": 1, "seq": 1}),
        GOES_ON,
    ),
    "a callback that post did not get": (
        json.dumps({"type": "callback", "request_uuid": "r", "__proto__": 1, "seq": 1}),
        GOES_ON,
    ),
    "a callback named like a method of every object": (
        json.dumps({"type": "callback", "request_uuid": "r", "toString": 1, "seq": 1}),
        GOES_ON,
    ),
    "an answer that is not an array": (
        json.dumps({"type": "callback", "request_uuid": "r", "found": 1, "answer": {}, "seq": 1}),
        GOES_ON,
    ),
    "a spread that is not an array": (
        json.dumps({"type": "callback", "request_uuid": "r", "found": 1, "spread": 7, "seq": 1}),
        GOES_ON,
    ),
}
"""A frame in the middle of a call, and its effect on the call."""


def hostile(frame: str | bytes, connections: list[str]) -> Starlette:
    """Return a gateway that sends one odd frame within a call, and then ends the call."""

    async def start(_request: Request) -> JSONResponse:
        return JSONResponse({"type": "start", "request_uuid": "r", "callbacks": ["found"]})

    async def connect(websocket: WebSocket) -> None:
        await websocket.accept()
        connections.append(str(websocket.url.query))
        seen = 0
        if "resume=1" in str(websocket.url.query):
            seen = (await websocket.receive_json())["seq"]
            await websocket.send_json({"type": "resumed", "uuid": "c"})
        else:
            await websocket.send_json(HELLO)
        try:
            if len(connections) == 1:
                # The POST has been answered when the client says that it is alive.
                await websocket.send_json({"type": "ping"})
                await websocket.receive_json()
                await (
                    websocket.send_text(frame)
                    if isinstance(frame, str)
                    else websocket.send_bytes(frame)
                )
                is_numbered = isinstance(frame, str) and '"seq": 1' in frame
                seen = 1 if is_numbered and '"seq": 1}' in frame else 0
            await websocket.send_json({**FINISH, "seq": seen + 1})
            while True:
                await websocket.receive_json()
        except (WebSocketDisconnect, RuntimeError):
            pass

    return Starlette(
        routes=[Route("/api/{m}/{c}", start, methods=["POST"]), WebSocketRoute("/ws", connect)]
    )


@pytest.mark.parametrize("what", FRAMES)
async def test_an_odd_frame_of_a_gateway_ends_its_connection_or_is_ignored(tmp_path, what):
    """The result arrives all the same. Nothing is thrown outside of the call."""
    frame, outcome = FRAMES[what]
    connections: list[str] = []
    script = """
    process.on("uncaughtException", (error) => report(`uncaught ${error}`));
    process.on("unhandledRejection", (error) => report(`unhandled ${error}`));
    console.warn = () => {};
    Math.random = () => 0.1;
    const message = new Message(host, port);
    report(await message.post("scan", {}, { found: () => 1 }));
    report({}.polluted ?? "clean");
    message.close();
    """
    async with hosting_on_trio(hostile(frame, connections)) as url:
        reported = await node.run_at(tmp_path, script, url.rpartition(":")[2])
    assert reported == ["done", "clean"]
    assert len(connections) == (2 if outcome == RECONNECTS else 1)


class Service:
    @trio_rpc.method
    async def echo(self, x: object) -> object:
        return x

    @trio_rpc.method
    async def large(self) -> int:
        return 2**53

    @trio_rpc.method
    async def entries(self) -> dict[str, int]:
        return {"__proto__": 1, "constructor": 2, "toString": 3}

    @trio_rpc.method
    async def call(self, show: Callable[[object], Awaitable[None]]) -> None:
        await show({"__proto__": {"polluted": True}})


async def test_integers_beyond_2_53_and_the_key_proto(tmp_path):
    """Such an integer is refused in both directions, and the key is a key like any other."""
    script = """
    const message = new Message(host, port);
    const told = (run) => run().then(JSON.stringify, (error) => error.code ?? error.name);
    report(await told(() => message.post("large")));
    report(await told(() => message.post("echo", { x: 2n ** 64n })));
    report(await told(() => message.post("echo", { x: 2 ** 53 })));
    report(await told(() => message.post("echo", { x: 2 ** 53 - 1 })));
    report(await told(() => message.post("echo", { x: JSON.parse('{"__proto__": {"polluted": 1}}') })));
    report(await told(() => message.post("entries")));
    await message.post("call", {}, { show: (value) => report(JSON.stringify(value)) });
    report({}.polluted ?? "clean");
    """
    got = await node.run(tmp_path, script, Gateway(Service()))
    assert got == [
        "internal",
        "TypeError",
        "9007199254740992",
        str(2**53 - 1),
        '{"__proto__":{"polluted":1}}',
        '{"__proto__":1,"constructor":2,"toString":3}',
        '{"__proto__":{"polluted":true}}',
        "clean",
    ]
