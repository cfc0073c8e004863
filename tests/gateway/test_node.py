"""message.js in node: what it sends and what it calls, without a browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import node
import pytest

import trio_rpc
from trio_rpc.gateway import Gateway, call_back

pytestmark = node.needs_node


class Service:
    @trio_rpc.method
    async def show(self, x: object = None) -> str:
        return repr(x)

    @trio_rpc.method
    async def several(
        self,
        found: Callable[..., Awaitable[None]],
        pair: Callable[[int, str], Awaitable[None]],
        done: Callable[[], Awaitable[None]],
    ) -> None:
        await found([1, 2])
        await found(1, 2)
        await found(a=1)
        await pair(1, "a")
        await call_back(found=None, pair=(2, "b"), done=())
        await done()


async def test_the_arguments_of_a_callback_arrive_one_by_one(tmp_path):
    script = """
    const say = (name) => (...given) => tell([name, ...given]);
    const message = new Message(host, port);
    await message.post("several", {}, { found: say("found"), pair: say("pair"), done: say("done") });
    """
    assert await node.run(tmp_path, script, Gateway(Service())) == [
        ["found", [1, 2]],
        ["found", 1, 2],
        ["found", {"a": 1}],
        ["pair", 1, "a"],
        ["found", None],
        ["pair", 2, "b"],
        ["done"],
        ["done"],
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("1e20", "1e+20"),
        ("1e300", "1e+300"),
        ("2 ** 53 - 1", str(2**53 - 1)),
        ("[null, true, 'ä😀']", "[None, True, 'ä😀']"),
        ("{ a: undefined, b: 1 }", "{'b': 1}"),
        ("undefined", "None"),
        ("Object.create(null)", "{}"),
        ("new Date(0)", "'1970-01-01T00:00:00.000Z'"),
    ],
)
async def test_what_is_sent(tmp_path, value, shown):
    script = f'tell(await failing(() => new Message(host, port).post("show", {{ x: {value} }})));'
    assert await node.run(tmp_path, script, Gateway(Service())) == [shown]


LOST = [
    "NaN",
    "-Infinity",
    "-0",
    "[undefined]",
    "[,]",
    "() => 1",
    "Symbol('a')",
    "10n",
    "new Map([[1, 2]])",
    "new Set([1])",
    "new Uint8Array(2)",
    "new Date(NaN)",
    "new (class Point {})()",
    "new Number(1)",
    "'\\ud800'",
    "{ '\\udfff': 1 }",
    "{ a: [{ b: NaN }] }",
]


async def test_what_json_would_lose_is_refused_here(tmp_path):
    script = "".join(
        f"tell(await failing(() => new Message(host, port).{verb}, {{ x: {value} }})));\n"
        for value in LOST
        for verb in ('post("show"', 'put("/x"')
    )
    told: list[Any] = await node.run(tmp_path, script)
    assert len(told) == 2 * len(LOST)
    for value, error in zip([value for value in LOST for _ in range(2)], told, strict=True):
        assert error.startswith("TypeError: "), (value, error)


async def test_what_the_gateway_would_lose_is_refused_there(tmp_path):
    script = 'tell(await failing(() => new Message(host, port).post("show", { x: 2 ** 53 + 2 })));'
    [error] = await node.run(tmp_path, script, Gateway(Service()))
    assert error == "9007199254740994.0"  # as a float, which it was


async def test_a_callback_without_a_possible_name_is_refused(tmp_path):
    script = """
    const error = await new Message(host, port).post("show", {}, { "größe": tell }).catch((e) => e);
    tell([error.code, error.parameter]);
    """
    assert await node.run(tmp_path, script, Gateway(Service())) == [["refused", "größe"]]


async def test_a_reason_that_ends_within_a_character_is_told_all_the_same(tmp_path):
    class Reporting:
        @trio_rpc.method
        async def tell(self, found: Callable[[int], Awaitable[None]]) -> str:
            while True:
                try:
                    await found(1)
                except trio_rpc.RemoteError as exc:
                    return str(exc)

    script = """
    const found = () => { throw new Error("x".repeat(992) + "😀"); };
    console.warn = () => {};
    tell((await new Message(host, port).post("tell", {}, { found })).length > 900);
    """
    assert await node.run(tmp_path, script, Gateway(Reporting())) == [True]
