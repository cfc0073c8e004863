"""The OpenAPI document of a gateway: valid, and kept by a live gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx
import jsonschema_rs
import pydantic
import pytest
import schemathesis
import trio
from helpers.cli_tools import run_cli
from helpers.gateway_tools import hosting
from schemathesis.checks import CHECKS

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits, openapi


@dataclass
class Item:
    name: str
    price: float = 1.0
    parts: tuple[str, ...] = ()


class Customer(pydantic.BaseModel):
    number: int = pydantic.Field(ge=1, le=1000)
    email: str | None = None


class Service:
    @trio_rpc.method
    async def echo(self, text: str, number: int = 0, *, share: float = 0.5) -> list[str]:
        """Return the arguments.

        As texts.
        """
        return [text, str(number), str(share)]

    @trio_rpc.method
    async def item(self, item: Item, others: dict[str, Item] | None = None) -> Item:
        return item

    @trio_rpc.method(name="find-customer")
    async def find(self, customer: Customer, since: date | None = None) -> Customer | None:
        return customer if since else None

    @trio_rpc.method
    async def both(self, value: int | str, raw: bytes = b"") -> dict[str, int]:
        return {"type": len(raw)}

    @trio_rpc.method
    async def nothing(self) -> None: ...

    @trio_rpc.method
    async def scan(self, folder: str, found: Callable[[str], Awaitable[None]]) -> int:
        await found(folder)
        return 1

    @trio_rpc.notification
    async def log(self, line: str) -> None: ...

    @trio_rpc.stream
    async def ticks(self, symbol: str) -> AsyncGenerator[int, None]:
        yield 1


SERVICES = {"shop": Service()}


def test_the_document_lists_the_post_routes():
    document = openapi(SERVICES, title="Shop", version="7")
    assert document["openapi"] == "3.1.0"
    assert (document["info"]["title"], document["info"]["version"]) == ("Shop", "7")
    alone = {path for path in document["paths"] if "{" not in path}
    assert alone == {
        f"/api/shop.{name}" for name in ("echo", "item", "find-customer", "both", "nothing", "log")
    }
    assert "/api/shop.scan/{client_id}" in document["paths"]
    echo = document["paths"]["/api/shop.echo"]["post"]
    assert (echo["summary"], echo["description"]) == ("Return the arguments.", "As texts.")
    assert echo["requestBody"]["required"]
    body = echo["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["text"]
    assert body["properties"]["share"] == {"type": "number"}
    item = document["paths"]["/api/shop.item"]["post"]["requestBody"]["content"]
    item = item["application/json"]["schema"]["properties"]["item"]
    assert item == {"$ref": "#/components/schemas/Item"}


def test_the_document_is_valid():
    schemathesis.openapi.from_dict(openapi(SERVICES)).validate()
    for made in openapi(SERVICES)["components"]["schemas"].values():
        jsonschema_rs.meta.validate(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
        )


async def test_a_gateway_serves_it_only_if_asked_and_only_to_callers_it_accepts():
    async def nobody(_: Any) -> None:
        raise trio_rpc.Refused("log in first")

    for gateway, status in (
        (Gateway(SERVICES), 404),
        (Gateway(SERVICES, openapi=True), 200),
        (Gateway(SERVICES, openapi=True, authenticate=nobody), 401),
    ):
        async with hosting(gateway) as url, httpx.AsyncClient(base_url=url) as http:
            answer = await http.get("/openapi.json")
            assert answer.status_code == status
            if status == 200:
                assert answer.json() == openapi(SERVICES)


@pytest.mark.slow
async def test_a_live_gateway_answers_as_the_document_says():
    """schemathesis sends right and wrong requests, and checks the status, the type and the body."""
    limits = GatewayLimits(max_body=100_000)
    async with hosting(Gateway(SERVICES, limits=limits, openapi=True)) as url:
        await trio.to_thread.run_sync(fuzz, url)


def fuzz(url: str) -> None:
    made = schemathesis.openapi.from_url(f"{url}/openapi.json")
    names = (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    )
    checks = [one for one in CHECKS.get_all() if one.__name__ in names]
    assert len(checks) == len(names)
    answers = 0
    for result in made.get_all_operations():
        operation = result.ok()
        answers += fuzz_one(operation, url, checks)
    assert answers > 100


def fuzz_one(operation: Any, url: str, checks: list[Any]) -> int:
    from hypothesis import Phase, given, settings

    seen = []

    @settings(max_examples=30, phases=[Phase.generate], derandomize=True, database=None)
    @given(
        operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
        | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
    )
    def run(case: Any) -> None:
        response = case.call(base_url=url)
        case.validate_response(response, checks=checks)
        seen.append(response.status_code)

    run()
    return len(seen)


@pytest.mark.slow
async def test_the_command_prints_it(tmp_path):
    (tmp_path / "shop.py").write_text(
        "import trio_rpc\n"
        "class Shop:\n"
        "    @trio_rpc.method\n"
        "    async def buy(self, item: str) -> int: ...\n"
        "services = {'shop': Shop()}\n"
        "def per_session(session): return Shop()\n"
    )
    ran = await run_cli("openapi", "shop:services", "--title", "Shop", cwd=tmp_path)
    document = json.loads(ran.stdout)
    assert document["info"]["title"] == "Shop"
    assert list(document["paths"]) == ["/api/shop.buy", "/api/shop.buy/{client_id}"]
    ran = await run_cli("typescript", "shop:services", "--gateway", cwd=tmp_path)
    assert b"data: { item: string };" in ran.stdout
    ran = await run_cli("typescript", "shop:per_session", cwd=tmp_path)
    assert ran.returncode == 2
    assert b"function of the session" in ran.stderr
