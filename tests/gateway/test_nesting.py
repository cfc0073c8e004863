"""Values nested too deeply are errors that say so, in each direction, and never a traceback."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias, Union

import pytest
import trio
from helpers import node
from helpers.gateway_tools import browsing, hosting

import trio_rpc
from trio_rpc.gateway import Gateway, Message
from trio_rpc.gateway.json_values import MAX_DEPTH

Json: TypeAlias = Union[str, int, list["Json"], dict[str, "Json"], None]  # noqa: UP007


@dataclass
class Node:
    inner: list[Node] = field(default_factory=list)


def nested(levels: int) -> object:
    """Return lists inside each other, with this number of levels."""
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


class Service:
    @trio_rpc.method
    async def anything(self, x: object) -> int:
        return 1

    @trio_rpc.method
    async def listed(self, x: list[object]) -> int:
        return 1

    @trio_rpc.method
    async def recursive(self, x: Json) -> int:
        return 1

    @trio_rpc.method
    async def nodes(self, x: Node) -> int:
        return 1

    @trio_rpc.method
    async def ask(self, f: Callable[[int], Awaitable[list[object]]]) -> str:
        try:
            await f(1)
        except trio_rpc.RemoteError as exc:
            return str(exc)
        return "answered"

    @trio_rpc.method
    async def result(self, levels: int) -> Json:
        return nested(levels)  # type: ignore[return-value]

    @trio_rpc.method
    async def node(self, levels: int) -> Node:
        made = Node()
        for _ in range(levels):
            made = Node([made])
        return made


BODIES = {
    "lists": lambda levels: "[" * levels + "1" + "]" * levels,
    "objects": lambda levels: '{"a":' * levels + "1" + "}" * levels,
    "both": lambda levels: '[{"a":' * (levels // 2) + "1" + "}]" * (levels // 2),
}


@pytest.mark.parametrize("form", BODIES)
@pytest.mark.parametrize("levels", [MAX_DEPTH + 2, 300, 500, 900, 1000, 3000, 100_000])
async def test_an_argument_nested_too_deeply_is_answered_with_400(form, levels, caplog):
    caplog.set_level(logging.INFO)
    async with hosting(Gateway(Service())) as url, browsing(url) as browser:
        headers = {"Content-Type": "application/json", "Trio-Rpc-Token": browser.token}
        body = f'{{"x": {BODIES[form](levels)}}}'
        for name in ("anything", "listed", "recursive"):
            for path in (f"/api/{name}", f"/api/{name}/{browser.id}"):
                got = await browser.http.post(path, content=body, headers=headers)
                assert got.status_code == 400, name
                assert "\n" not in got.json()["error"]
    assert [one for one in caplog.records if one.exc_info] == []


async def test_an_argument_of_the_greatest_depth_arrives():
    async with hosting(Gateway(Service())) as url:
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        for name in ("anything", "listed", "recursive"):
            assert await message.post(name, {"x": nested(MAX_DEPTH)}) == 1
        node = json.loads('{"inner":[' * 50 + "]}" * 50)
        assert await message.post("nodes", {"x": node}) == 1


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 500, 3000])
async def test_a_client_refuses_an_argument_nested_too_deeply(levels):
    async with hosting(Gateway(Service())) as url:
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        with pytest.raises(trio_rpc.EncodeError, match="nested"):
            await message.post("anything", {"x": nested(levels)})
        async with message.connect():
            with pytest.raises(trio_rpc.EncodeError, match="nested"):
                await message.post("anything", {"x": nested(levels)})


@pytest.mark.parametrize("levels", [MAX_DEPTH + 2, 250, 3000])
async def test_a_callbacks_result_nested_too_deeply_raises_in_its_handler(levels):
    async with hosting(Gateway(Service())) as url:
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        with trio.fail_after(10):
            text = await message.post("ask", {}, {"f": lambda _: nested(levels)})
        assert "nested" in text


@pytest.mark.parametrize("method", ["result", "node"])
async def test_a_result_nested_too_deeply_is_an_error_that_says_so(method):
    async with hosting(Gateway(Service())) as url:
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        for levels in range(100, 1000, 75):
            try:
                await message.post(method, {"levels": levels})
            except trio_rpc.RemoteError as exc:
                assert "nested too deeply" in str(exc)  # noqa: PT017 - a lower depth may succeed


@node.needs_node
async def test_message_js_refuses_values_nested_too_deeply(tmp_path):
    script = f"""
    const nested = (levels) => {{ let value = 1; while (levels-- > 0) value = [value]; return value; }};
    const message = await new Message(host, port).connect();
    for (const levels of [{MAX_DEPTH}, {MAX_DEPTH + 1}, 3000]) {{
      report(await message.post("anything", {{ x: nested(levels) }}).catch((error) => error.message));
      report(await message.post("ask", {{}}, {{ f: () => nested(levels) }}));
    }}
    message.close();
    """
    with trio.fail_after(30):
        reported = await node.run(tmp_path, script, Gateway(Service()))
    text = f"a value is nested more than {MAX_DEPTH} levels deep"
    refused = [text, f"Error: f: TypeError: {text}"]
    assert reported == [1, "answered", *refused, *refused]
