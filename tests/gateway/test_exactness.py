"""Values that JSON would change are errors at the end that sends them, in every direction."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import pytest
import trio
from helpers.gateway_tools import browsing, hosting, until_it_fails

import trio_rpc
from trio_rpc.gateway import Gateway, Message, call_back, outlives

LOSSY = {
    "nan": math.nan,
    "inside": {"a": [math.inf]},
    "keys": {1: "a", "1": "b"},
    "large": 2**53,
    "bytes": b"a",
    "surrogate": "\ud800",
    "set": {1},
}


class Service:
    """Methods that try to send the value that they are asked for."""

    @trio_rpc.method
    async def result(self, kind: str) -> object:
        return LOSSY[kind]

    @trio_rpc.method
    @outlives
    async def kept(self, kind: str) -> object:
        return LOSSY[kind]

    @trio_rpc.method
    async def calls(self, kind: str, found: Callable[[object], Awaitable[None]]) -> str:
        try:
            await found(LOSSY[kind])
        except (TypeError, ValueError) as exc:
            return f"{type(exc).__name__}"
        return "sent"

    @trio_rpc.method
    async def calls_together(self, kind: str, found: Callable[[object], Awaitable[None]]) -> str:
        try:
            await call_back(found=LOSSY[kind])
        except (TypeError, ValueError):
            return "refused"
        return "sent"

    @trio_rpc.method
    async def by_name(self, kind: str, found: Callable[..., Awaitable[None]]) -> str:
        try:
            await found(a=LOSSY[kind])
        except (TypeError, ValueError):
            return "refused"
        return "sent"

    @trio_rpc.method
    async def fail(self) -> None:
        exc = ValueError(math.nan, b"\xff", "\ud800", 2**60)
        exc.add_note("\udfff")
        raise exc

    @trio_rpc.method
    async def show(self, x: object) -> str:
        return repr(x)

    @trio_rpc.method
    async def blob(self, x: bytes) -> list[bytes]:
        return [x]

    @trio_rpc.method
    async def table(self, x: dict[int, bytes]) -> list[dict[int, bytes]]:
        return [x]

    @trio_rpc.method
    async def wave(self, x: complex) -> list[complex]:
        return [x]

    @trio_rpc.method
    async def count(self, x: int) -> int:
        return x

    @trio_rpc.method
    async def several(
        self, found: Callable[..., Awaitable[None]], done: Callable[[], Awaitable[None]]
    ) -> None:
        await found([1, 2])
        await found(1, 2)
        await found(a=1, b=2)
        await found(None)
        await done()


@pytest.fixture
async def gateway_url():
    async with hosting(Gateway(Service())) as url:
        yield url


@pytest.fixture
def message(gateway_url) -> Message:
    return Message("127.0.0.1", int(gateway_url.rpartition(":")[2]))


@pytest.mark.parametrize("kind", LOSSY)
async def test_a_result_that_json_would_change_is_an_error_of_its_call(message, kind):
    with pytest.raises(trio_rpc.RemoteError, match="the result of result cannot be sent"):
        await message.post("result", {"kind": kind})
    async with message.connect():
        with pytest.raises(trio_rpc.RemoteError, match="the result of kept cannot be sent"):
            await message.post("kept", {"kind": kind})


@pytest.mark.parametrize("kind", LOSSY)
async def test_a_callbacks_argument_that_json_would_change_raises_at_the_handler(message, kind):
    found = []
    data, callbacks = {"kind": kind}, {"found": found.append}
    assert await message.post("calls", data, callbacks) in {"TypeError", "ValueError"}
    assert await message.post("calls_together", data, callbacks) == "refused"
    assert await message.post("by_name", data, callbacks) == "refused"
    assert found == []


@pytest.mark.parametrize("kind", LOSSY)
async def test_an_argument_that_json_would_change_raises_at_the_caller(message, kind):
    for call in (message.post, message.put):
        with pytest.raises(trio_rpc.EncodeError):
            await call("show", {"x": LOSSY[kind]})
    async with message.connect():
        with pytest.raises(trio_rpc.EncodeError):
            await message.post("show", {"x": LOSSY[kind]})


async def test_a_value_in_its_json_form_is_read_by_its_annotation(message):
    for name, value in (("blob", "AP8="), ("table", {"-1": "AP8="}), ("wave", [0.0, -1.0])):
        assert await message.post(name, {"x": value}) == [value]


@pytest.fixture
def unlogged(caplog):
    """Keep lone surrogates out of the log, because pytest-xdist cannot transfer them."""
    caplog.set_level(logging.CRITICAL, "trio_rpc.gateway")
    caplog.set_level(logging.CRITICAL, "trio_rpc")


async def test_the_exception_of_a_handler_may_contain_a_lone_surrogate(message, unlogged):
    with pytest.raises(trio_rpc.RemoteError, match="ud800"):
        await message.post("fail")


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("show", b'{"x": 1, "x": 2}', 400),
        ("show", b'{"x": {"a": 1, "a": 2}}', 400),
        ("show", b'{"x": NaN}', 400),
        ("show", b'{"x": 1e999}', 400),
        ("show", b'{"x": 9007199254740993}', 400),
        ("count", b'{"x": 9007199254740992}', 422),
        ("show", b'{"x": "\\ud800"}', 400),
        ("blob", b'{"x": "%%%"}', 422),
        ("table", b'{"x": {"01": ""}}', 422),
    ],
)
async def test_a_body_that_would_be_changed_is_refused(gateway_url, method, body, status):
    async with browsing(gateway_url) as browser:
        headers = {"Content-Type": "application/json", "Trio-Rpc-Token": browser.token}
        for path in (f"/api/{method}", f"/api/{method}/{browser.id}"):
            got = await browser.http.post(path, content=body, headers=headers)
            assert (got.status_code, next(iter(got.json()))) == (status, "error")


async def test_the_arguments_of_a_callback_arrive_one_by_one(message):
    calls = []

    def found(*args: object, **kwargs: object) -> None:
        calls.append((args, kwargs))

    await message.post("several", {}, {"found": found, "done": lambda: calls.append("done")})
    assert calls == [
        (([1, 2],), {}),
        ((1, 2), {}),
        ((), {"a": 1, "b": 2}),
        ((None,), {}),
        "done",
    ]


async def test_a_legacy_client_gets_the_arguments_of_a_callback_as_one_value(gateway_url):
    async with browsing(gateway_url, "") as browser:
        callbacks, _ = await browser.until_end(await browser.start("several"))
        assert all("spread" not in one for one in callbacks)
        assert [one["found"] for one in callbacks[:3]] == [[1, 2], [1, 2], {"a": 1, "b": 2}]


async def test_the_exception_of_a_callback_may_contain_a_lone_surrogate(unlogged):
    def found(_: object) -> None:
        raise ValueError("\ud800")

    class Telling:
        @trio_rpc.method
        async def tell(self, found: Callable[[int], Awaitable[None]]) -> str:
            return await until_it_fails(found)

    async with hosting(Gateway(Telling())) as url:
        one = Message("127.0.0.1", int(url.rpartition(":")[2]))
        with trio.fail_after(5):
            assert "ud800" in await one.post("tell", {}, {"found": found})


@pytest.mark.parametrize("name", ["größe", "a b", "a,b", "a\r\nb", ""])
async def test_a_callback_with_an_invalid_name_is_refused(message, name):
    with pytest.raises(trio_rpc.InvalidArguments, match="cannot be the name of a callback"):
        await message.post("show", {"x": 1}, {name: print})


@pytest.mark.parametrize("name", ["../message.js", "a/b", "a?b", "größe", "a%2fb", " "])
async def test_a_method_with_an_invalid_name_is_not_found(message, name):
    with pytest.raises((trio_rpc.MethodNotFound, trio_rpc.RpcError)):
        await message.post(name)
    with pytest.raises((trio_rpc.MethodNotFound, trio_rpc.RpcError)):
        await message.post(name, {}, {"found": print})
