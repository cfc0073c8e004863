"""docs/gateway.md lists the gateway's limits, messages, statuses and names as they are."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Awaitable, Callable

import pytest
from helpers.pages import ROOT, blocks_of, codes, read, section, table

import trio_rpc
from trio_rpc import gateway
from trio_rpc.gateway.server.connection import End

PAGE = "gateway.md"
SOURCE = "".join(
    path.read_text("utf-8") for path in (ROOT / "trio_rpc" / "gateway").glob("**/*.py")
)
SCRIPT = (ROOT / "trio_rpc" / "gateway" / "static" / "message.js").read_text("utf-8")


def test_every_limit_is_listed_with_its_default():
    rows = table(section(PAGE, "Limits"), "field")
    limits = gateway.GatewayLimits()
    assert [(codes(name)[0], default) for name, default, _ in rows] == [
        (field.name, str(getattr(limits, field.name))) for field in dataclasses.fields(limits)
    ]


def test_each_listed_message_is_sent_and_handled():
    text = section(PAGE, "The WebSocket")
    for first, source in (("from the gateway", SCRIPT), ("from the client", SOURCE)):
        kinds = [kind for row in table(text, first) for kind in codes(row[0])]
        for kind in kinds:
            assert f'"{kind}"' in source, f"{kind} is not handled"
            assert f'"{kind}"' in (SOURCE if source is SCRIPT else SCRIPT), f"{kind} is not sent"


def test_the_listed_statuses_are_those_of_refusals():
    listed = {row[0] for row in table(section(PAGE, "HTTP"), "status")}
    assert listed == set(re.findall(r"Refusal\(\s*(\d{3}),", SOURCE))


def test_the_listed_headers_are_those_that_the_server_reads():
    listed = {codes(row[0])[0].lower() for row in table(section(PAGE, "HTTP"), "header")}
    assert listed == set(re.findall(r'headers\.get\("([a-z-]+)"', SOURCE)) - {
        "content-type",
        "host",
        "origin",
    }


def test_every_close_code_is_listed():
    rows = table(section(PAGE, "Reconnecting"), "close code")
    ours = {str(end.value[0]) for end in End if end is not End.GONE}
    assert {row[0] for row in rows} == ours


def test_the_page_mentions_each_public_name():
    text = read(PAGE)
    for name in gateway.__all__:
        assert re.search(rf"\b{name}\b", text), name


class SoldOut(Exception):
    pass


def shop(user):
    class Shop:
        @trio_rpc.method(raises=(SoldOut,))
        async def buy(self, stock: dict[str, int], item: str) -> int:
            if not stock[item]:
                raise SoldOut(item)
            return stock[item]

        @trio_rpc.method
        async def who(self, tell: Callable[[str], Awaitable[None]] | None = None) -> str:
            if tell is not None:
                await tell(user.get())
            return user.get()

    return Shop()


@contextlib.asynccontextmanager
async def served_to_ann():
    """Serve a gateway behind the middleware of the page, and open a client of it."""
    [block] = [each for each in blocks_of(PAGE) if "class KnowsUsers" in each.text]
    names = {}
    exec(block.text, names)  # noqa: S102 - our own page
    seen = []

    async def authorise(call, proceed):
        if call.method == "buy":
            seen.append(names["user"].get())
        return await proceed()

    inner = gateway.Gateway(shop(names["user"]), filters=[authorise])
    app = names["KnowsUsers"](inner, lambda scope: "ann")
    async with gateway.open_http_server(app, "http://127.0.0.1:0") as (url,):
        yield gateway.Message("127.0.0.1", int(url.rpartition(":")[2])), seen


async def test_a_middleware_passes_the_user_to_methods_and_filters():
    async with served_to_ann() as (message, seen):
        assert await message.post("who") == "ann"
        received = []
        assert await message.post("who", callbacks={"tell": received.append}) == "ann"
        assert received == ["ann"]
        await message.post("buy", {"stock": {"tea": 1}, "item": "tea"})
        assert seen == ["ann"]


async def test_errors_are_identified_by_their_type_name():
    async with served_to_ann() as (message, _):
        for item, name in (("tea", "SoldOut"), ("milk", "builtins.KeyError")):
            with pytest.raises(trio_rpc.RemoteError) as info:
                await message.post("buy", {"stock": {"tea": 0}, "item": item})
            assert info.value.type_name == name
