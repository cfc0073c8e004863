"""docs/gateway.md lists the gateway's limits, messages, statuses and names as they are."""

from __future__ import annotations

import dataclasses
import re

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


def test_the_listed_headers_are_the_headers_that_the_server_reads():
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


class Shop:
    @trio_rpc.method(raises=(SoldOut,))
    async def buy(self, stock: dict[str, int], item: str) -> int:
        if not stock[item]:
            raise SoldOut(item)
        return stock[item]


async def test_the_example_of_authenticate_names_the_user_and_refuses_others():
    [block] = [each for each in blocks_of(PAGE) if "class Orders" in each.text]
    names = {}
    exec(block.text, names)  # noqa: S102 - our own page
    async with gateway.open_http_server(names["gateway"], "http://127.0.0.1:0") as (url,):
        port = int(url.rpartition(":")[2])
        ann = gateway.Message("127.0.0.1", port, cookies={"session": "secret-of-ann"})
        assert (await ann.post("mine")).startswith("the orders of ann, asked by python-httpx/")
        with pytest.raises(trio_rpc.Refused, match="log in first"):
            await gateway.Message("127.0.0.1", port).post("mine")
        names["USERS"]["secret-of-bob"] = "bob"
        bob = gateway.Message("127.0.0.1", port, cookies={"session": "secret-of-bob"})
        with pytest.raises(trio_rpc.Unavailable, match="mine is not for bob"):
            await bob.post("mine")


async def test_errors_are_identified_by_their_type_name():
    server = gateway.open_http_server(gateway.Gateway(Shop()), "http://127.0.0.1:0")
    async with server as (url,):
        message = gateway.Message("127.0.0.1", int(url.rpartition(":")[2]))
        for item, name in (("tea", "SoldOut"), ("milk", "builtins.KeyError")):
            with pytest.raises(trio_rpc.RemoteError) as info:
                await message.post("buy", {"stock": {"tea": 0}, "item": item})
            assert info.value.type_name == name
