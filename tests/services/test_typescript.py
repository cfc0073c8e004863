"""The TypeScript types of services: their text, and tsc's verdict on right and wrong uses."""

from __future__ import annotations

import enum
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import trio

import trio_rpc
from trio_rpc.services.outliving import outlives
from trio_rpc.services.typescript import typescript

PACKAGE = Path(trio_rpc.__file__).parent
GATEWAY_TYPES = PACKAGE / "gateway/static/message.d.ts"
SESSION_TYPES = PACKAGE / "js/session.d.ts"
TSC = ("npx", "--yes", "-p", "typescript@5", "tsc", "--strict", "--noEmit", "--target", "es2022")
OPTIONS = ("--module", "esnext", "--moduleResolution", "bundler", "--lib")
LIB = "es2023,dom,dom.iterable,esnext.disposable"


@dataclass
class Order:
    symbol: str
    amount: float = 1.0
    note: str | None = None


class Market:
    @trio_rpc.method
    async def price(self, symbol: str) -> float:
        """Return the price."""
        raise NotImplementedError

    @trio_rpc.method
    async def order(
        self,
        order: Order,
        confirm: Callable[[str], Awaitable[bool]],
        progress: Callable[[float, int], Awaitable[None]] | None = None,
    ) -> list[Order]: ...

    @trio_rpc.method(name="start-task")
    @outlives
    async def start_task(self, at: datetime | None = None, raw: bytes = b"") -> None: ...

    @trio_rpc.stream
    async def ticks(self, symbol: str) -> AsyncGenerator[Order, None]:
        yield Order(symbol)

    @trio_rpc.duplex
    async def chat(self, channel: trio.abc.Channel[str], room: str) -> None: ...

    @trio_rpc.notification
    async def log(self, line: str) -> None: ...


SERVICES = {"market": Market()}

FOR_MESSAGE = """\
// Written by `trio-rpc typescript`. Changes are lost when it is written again.

import type { Job, Message, PostOptions } from "./message.js";

export interface Order { symbol: string; amount?: number; note?: string | null }

export interface Methods {
  "market.log": {
    data: { line: string };
    callbacks: Record<string, never>;
    result: null;
  };
  "market.order": {
    data: { order: Order };
    callbacks: { confirm: (argument1: string) => boolean | PromiseLike<boolean>; \
progress?: (argument1: number, argument2: number) => unknown };
    result: Order[];
  };
  /** Return the price. */
  "market.price": {
    data: { symbol: string };
    callbacks: Record<string, never>;
    result: number;
  };
  "market.start-task": {
    data: { at?: string | null; raw?: string };
    callbacks: Record<string, never>;
    result: null;
  };
}

/** The methods that can be jobs. */
export type Jobs = "market.start-task";
"""

FOR_SESSION = """\
// Written by `trio-rpc typescript`. Changes are lost when it is written again.

import type { RemoteCall, ItemStream, DuplexStreams, DateTime } from "./session.js";

export interface Order { symbol: string; amount?: number; note?: string | null }

/** `session.proxy<Services["name"]>("name")` */
export interface Services {
  market: {
    chat: { duplex(room: string): DuplexStreams<string, string> };
    log: { (line: string): RemoteCall<null>; notify(line: string): Promise<void> };
    order: (order: Order, confirm: (argument1: string) => boolean | PromiseLike<boolean>, \
progress?: (argument1: number, argument2: number) => unknown) => RemoteCall<Order[]>;
    /** Return the price. */
    price: (symbol: string) => RemoteCall<number>;
    "start-task": (at?: DateTime | null, raw?: Uint8Array) => RemoteCall<null>;
    ticks: { (symbol: string): AsyncIterable<Order>; stream(symbol: string): ItemStream<Order> };
  };
}
"""

USES_OF_MESSAGE = """\
import { Message } from "./message.js";
import type { TypedMessage } from "./api";

const message = new Message() as TypedMessage;
await (await message.connect()).post("market.log", { line: "a" });
const price: number = await message.post("market.price", { symbol: "BTC" });
await message.post("market.start-task");
await message.post("market.start-task", { at: null }, {}, { timeoutMs: 5 });
const confirm = async (text: string) => text.length > price;
const orders = await message.post("market.order", { order: { symbol: "BTC" } }, { confirm });
const note: string | null | undefined = orders[0].note;
await message.post("market.order", { order: { symbol: "BTC", amount: 2 } }, {
  confirm: () => true,
  progress: (share, step) => share.toFixed() + step.toFixed(),
});
const job = await message.start("market.start-task", { raw: "" }, { timeoutMs: 5 });
const nothing: null = await message.job<"market.start-task">(job.id).result();

// @ts-expect-error the method is not marked with @outlives
await message.start("market.price", { symbol: "BTC" });
// @ts-expect-error a parameter of a job has another type
await message.start("market.start-task", { raw: 1 });
// @ts-expect-error the result of a job has another type
const number: number = await job.result();
// @ts-expect-error there is no such method
await message.post("market.prices", { symbol: "BTC" });
// @ts-expect-error a parameter is missing
await message.post("market.price");
// @ts-expect-error a parameter has another type
await message.post("market.price", { symbol: 1 });
// @ts-expect-error there is no such parameter
await message.post("market.price", { symbol: "BTC", at: 1 });
// @ts-expect-error the method has no callbacks
await message.post("market.price", { symbol: "BTC" }, { confirm });
// @ts-expect-error a required callback is missing
await message.post("market.order", { order: { symbol: "BTC" } }, {});
// @ts-expect-error a callback returns another type
await message.post("market.order", { order: { symbol: "BTC" } }, { confirm: () => "yes" });
// @ts-expect-error a field of a class is missing
await message.post("market.order", { order: { amount: 1 } }, { confirm });
// @ts-expect-error the result has another type
const text: string = await message.post("market.price", { symbol: "BTC" });
// @ts-expect-error streams are not called over a gateway
await message.post("market.ticks", { symbol: "BTC" });
"""

USES_OF_SESSION = """\
import { DateTime, type Session } from "./session.js";
import type { Services } from "./api";

declare const session: Session;
const market = session.proxy<Services["market"]>("market");
const price: number = await market.price("BTC");
const orders = await market.order({ symbol: "BTC" }, async (text) => text.length > price);
await market.order({ symbol: "BTC" }, () => true, (share, step) => share.toFixed(step));
const symbol: string = orders[0].symbol;
await market["start-task"](new DateTime("2026-01-01T00:00:00"), new Uint8Array());
for await (const tick of market.ticks("BTC")) tick.amount?.toFixed();
const writer = market.chat.duplex("lobby").writable.getWriter();
await writer.write("hello");
await market.log.notify("a line");

// @ts-expect-error there is no such method
await market.prices("BTC");
// @ts-expect-error an argument is missing
await market.price();
// @ts-expect-error an argument has another type
await market.price(1);
// @ts-expect-error there are too many arguments
await market.price("BTC", 1);
// @ts-expect-error a callback returns another type
await market.order({ symbol: "BTC" }, () => "yes");
// @ts-expect-error a callback takes another type
await market.order({ symbol: "BTC" }, (number: number) => number > 1);
// @ts-expect-error a field of a class is missing
await market.order({ amount: 1 }, () => true);
// @ts-expect-error the result has another type
const text: string = await market.price("BTC");
// @ts-expect-error a stream has items, and no result
await market.ticks("BTC").then();
// @ts-expect-error a message has another type
await writer.write(1);
"""


def test_the_types_for_message_js():
    text = typescript(SERVICES, gateway=True)
    assert text.startswith(FOR_MESSAGE)
    assert "export type TypedMessage" in text


def test_the_types_for_session_js():
    assert typescript(SERVICES) == FOR_SESSION


def test_the_import_can_be_given():
    for gateway in (False, True):
        assert 'from "/rpc/it.js";' in typescript(SERVICES, gateway=gateway, module="/rpc/it.js")


def test_names_that_typescript_has_taken_and_texts_that_would_end_a_comment():
    class Promise(trio_rpc.TypeRegistry): ...

    @dataclass
    class Record:
        """Not TypeScript's own."""

        of: int

    class Service:
        @trio_rpc.method
        async def first(self, record: Record) -> None:
            """Look at */ and at others."""

    text = typescript(Service())
    assert "export interface _Record { of: number }" in text
    assert r"/** Look at *\/ and at others. */" in text
    assert "first: (record: _Record) => RemoteCall<null>;" in text


@pytest.mark.slow
@pytest.mark.parametrize("gateway", [True, False])
def test_tsc_accepts_right_uses_and_refuses_wrong_ones(tmp_path, gateway):
    """tsc also reports a line that is expected to be wrong and is not."""
    if shutil.which("npx") is None and not os.environ.get("CI"):
        pytest.skip("npx is not installed")
    if not (gateway or SESSION_TYPES.exists()):
        pytest.skip("session.js has no types yet")
    client = GATEWAY_TYPES if gateway else SESSION_TYPES
    shutil.copy(client, tmp_path)
    (tmp_path / "api.ts").write_text(typescript(SERVICES, gateway=gateway))
    (tmp_path / "uses.mts").write_text(USES_OF_MESSAGE if gateway else USES_OF_SESSION)
    ran = subprocess.run(  # noqa: S603 - a program of this repository
        [*TSC, *OPTIONS, LIB, "uses.mts"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "")


class Marks(enum.Flag):
    ONE = 1
    TWO = 2


class Odd:
    @trio_rpc.method
    async def take(self, marks: Marks, row: tuple[str, *tuple[Marks, ...]]) -> None: ...


def test_flags_are_numbers_and_a_tuple_may_end_with_items_of_any_number():
    text = typescript(Odd(), gateway=True)
    assert "marks: number" in text
    assert "row: [string, ...number[]]" in text
