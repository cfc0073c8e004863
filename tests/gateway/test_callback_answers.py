"""Callbacks return values to the handler, if their annotation says so."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import pytest
import trio
from helpers.gateway_tools import browsing, hosting, resuming

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits, Message, outlives


@dataclass
class Choice:
    name: str
    count: int = 1


class Picks(Protocol):
    async def __call__(self, first: str, second: str) -> Choice: ...


class Service:
    def __init__(self) -> None:
        self.started = trio.Event()
        self.outcome: list[str] = []
        self.settled = trio.Event()

    @trio_rpc.method
    async def confirm(self, ask: Callable[[str], Awaitable[bool]]) -> str:
        return "done" if await ask("proceed?") else "stopped"

    @trio_rpc.method
    async def pick(self, pick: Picks) -> str:
        choice = await pick("tea", "milk")
        return f"{choice.count} {choice.name}"

    @trio_rpc.method
    async def several(self, ask: Callable[[int], Awaitable[int]]) -> list[int]:
        answers = [0] * 10

        async def one(number: int) -> None:
            answers[number] = await ask(number)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(one, number)
        return answers

    @trio_rpc.method
    async def fails(self, ask: Callable[[str], Awaitable[bool]]) -> list[str]:
        errors = []
        for text in ("one", "two"):
            try:
                await ask(text)
            except trio_rpc.RpcError as exc:
                errors.append(f"{type(exc).__name__}: {exc}")
        return errors

    @trio_rpc.method
    async def maybe(self, ask: Callable[[str], Awaitable[bool | None]]) -> str:
        return repr(await ask("sure?"))

    @trio_rpc.method
    @outlives
    async def outliving(self, ask: Callable[[str], Awaitable[bool]]) -> None:
        try:
            await ask("proceed?")
        except trio_rpc.SessionBroken as exc:
            self.outcome.append(str(exc))
        self.settled.set()

    @trio_rpc.method
    async def impatient(self, ask: Callable[[str], Awaitable[bool]]) -> str:
        with trio.move_on_after(0):
            await ask("proceed?")
        return "gave up"


def client_of(url: str) -> Message:
    return Message("127.0.0.1", int(url.rpartition(":")[2]))


@pytest.mark.parametrize(("answer", "result"), [(True, "done"), (False, "stopped")])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_handler_gets_the_value_of_its_callback(answer, result, is_async):
    async def ask_async(text: str) -> bool:
        await trio.lowlevel.checkpoint()
        return answer

    async with hosting(Gateway(Service())) as url:
        ask = ask_async if is_async else lambda _: answer
        assert await client_of(url).post("confirm", callbacks={"ask": ask}) == result


async def test_two_arguments_arrive_as_two_and_a_class_comes_back():
    async with hosting(Gateway(Service())) as url:
        given = []

        def pick(first: str, second: str) -> dict[str, object]:
            given.extend((first, second))
            return {"name": second, "count": 2}

        assert await client_of(url).post("pick", callbacks={"pick": pick}) == "2 milk"
        assert given == ["tea", "milk"]


async def test_several_tasks_of_a_handler_wait_for_their_own_values():
    async with hosting(Gateway(Service())) as url:
        answers = await client_of(url).post("several", callbacks={"ask": lambda n: n * n})
        assert answers == [n * n for n in range(10)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (3, "DecodeError: the callback 'ask' returned a value that does not fit: Expected `bool`"),
        (None, "DecodeError: the callback 'ask' returned a value that does not fit: Expected"),
        (object(), "RemoteError: Error: ask: TypeError: "),
        (float("nan"), "RemoteError: Error: ask: ValueError: "),
        ("x" * 65_000, "RemoteError: Error: its value is too large: "),
    ],
)
async def test_a_value_that_does_not_fit_is_an_error_of_that_callback_alone(answer, expected):
    async with hosting(Gateway(Service())) as url:
        errors = await client_of(url).post("fails", callbacks={"ask": lambda _: answer})
    assert len(errors) == 2
    for error in errors:
        assert error.startswith(expected)


async def test_an_error_of_a_callback_is_raised_at_the_call_that_made_it():
    def ask(text: str) -> bool:
        raise LookupError(f"no {text}")

    async with hosting(Gateway(Service())) as url:
        errors = await client_of(url).post("fails", callbacks={"ask": ask})
    assert errors == [f"RemoteError: Error: ask: LookupError: no {text}" for text in ("one", "two")]


async def test_a_client_that_does_not_provide_the_callback_fails_it():
    async with hosting(Gateway(Service())) as url:
        message = client_of(url)
        async with message.connect():
            errors = await message.post("fails")
    assert errors == ["RemoteError: Error: ask: the client did not provide this callback"] * 2


async def test_a_client_of_an_earlier_version_fails_it_unless_none_is_a_value():
    async with hosting(Gateway(Service())) as url, browsing(url) as browser:
        _, end = await browser.until_end(await browser.start("fails"))
        text = "LocalProtocolError: ask: the callbacks of this client return no values"
        assert end["payload"] == [text] * 2
        callbacks, end = await browser.until_end(await browser.start("maybe"))
        assert (callbacks[0]["ask"], end["payload"]) == ("sure?", "None")


async def test_an_answer_that_a_lost_connection_has_lost_is_given_again():
    async with hosting(Gateway(Service())) as url:
        async with browsing(url, "resumable=1&answers=1") as browser:
            request = await browser.start("confirm")
            callback = await browser.next()
            assert callback["answer"] == [1, 1]
            browser.cut()
            async with resuming(browser) as first:
                assert first["type"] == "resumed"
                result = {"request_uuid": request, "answer": 1, "value": True}
                await browser.send("callback_result", **{**result, "answer": 7})  # unknown
                await browser.send("callback_result", **result)
                await browser.send("callback_result", **{**result, "value": False})  # repeated
                _, end = await browser.until_end(request)
                assert end["payload"] == "done"


@pytest.mark.parametrize("odd", [{}, {"answer": "1"}, {"answer": None}, {"answer": 0}])
async def test_an_answer_that_names_no_callback_is_ignored(odd):
    async with hosting(Gateway(Service())) as url:
        async with browsing(url, "resumable=1&answers=1") as browser:
            request = await browser.start("confirm")
            await browser.next()
            await browser.send("callback_result", request_uuid=request, value=False, **odd)
            await browser.send("callback_result", request_uuid=request, answer=1, value=True)
            assert (await browser.until_end(request))[1]["payload"] == "done"


async def test_a_client_that_goes_away_raises_in_a_handler_that_outlives_it():
    service = Service()
    async with hosting(Gateway(service, limits=GatewayLimits(grace=0.01))) as url:
        async with browsing(url, "resumable=1&answers=1") as browser:
            await browser.start("outliving")
            await browser.next()
        await service.settled.wait()
    assert service.outcome == ["the client has disconnected before its callback returned a value"]


async def test_a_handler_may_stop_waiting():
    async with hosting(Gateway(Service())) as url:
        got = await client_of(url).post("impatient", callbacks={"ask": lambda _: True})
        assert got == "gave up"


class Sets:
    @trio_rpc.method
    async def ask(self, ask: Callable[[], Awaitable[set[int] | dict[str, float]]]) -> str:
        try:
            return repr(await ask())
        except trio_rpc.RpcError as exc:
            return f"{type(exc).__name__}: {exc}"


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("[1, 2]", "{1, 2}"),
        ('{"a": 9007199254740994}', "{'a': 9007199254740994.0}"),
        ("[1, 1]", "DecodeError: .* repeats an element of a set, or a key"),
        ('{"a": 1, "a": 2}', "RemoteError: .* the key 'a' appears twice"),
        ('{"a": 9007199254740993}', "RemoteError: .* beyond 2.53 - 1, where browsers round.*"),
        ('{"a": 1e-400}', "RemoteError: .* 1e-400 is too small"),
    ],
)
async def test_a_value_that_reading_would_change_is_an_error_of_its_callback(value, outcome):
    async with hosting(Gateway(Sets())) as url, browsing(url, "answers=1&resumable=1") as browser:
        request = await browser.start("ask")
        number = (await browser.next())["answer"][0]
        head = f'"type": "callback_result", "request_uuid": "{request}", "answer": {number}'
        await browser.ws.send_message(f'{{{head}, "value": {value}}}')
        _, end = await browser.until_end(request)
        assert re.fullmatch(outcome, end["payload"])
