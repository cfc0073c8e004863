"""Converting one message costs at most ``max_nodes`` of its receiver, wherever its values are."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

import trio_rpc
from trio_rpc.errors import DecodeError, Fate, InvalidArguments
from trio_rpc.testing import open_session_pair

FEW, MANY = ["a"] * 50, ["a"] * 150
"""Paths that cost less, and more, than 1024 units; both are fewer than 1024 values."""

SMALL = {"limits": trio_rpc.Limits(max_nodes=1024)}
TEXT = re.escape(
    "too costly to convert to the annotated types: max_nodes (1024) in the limits of the receiving"
    " end allows less. Raise it there, or send less at once, as in a stream"
)


class Lost(Exception):
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        super().__init__(paths)


class Service:
    def __init__(self):
        self.notes = []

    @trio_rpc.method
    async def take(self, paths: list[Path], more: list[Path] = []) -> int:  # noqa: B006
        return len(paths) + len(more)

    @trio_rpc.method
    async def take_names(self, *, paths: list[Path]) -> int:
        return len(paths)

    @trio_rpc.method
    async def echo(self, texts: list[str]) -> list[Path]:
        return texts  # type: ignore[return-value]

    @trio_rpc.stream
    async def items(self) -> AsyncIterator[list[Path]]:
        for paths in (FEW, MANY, FEW):
            yield paths  # type: ignore[misc]

    @trio_rpc.method
    async def start(
        self,
        texts: list[str],
        *,
        task_status: trio.TaskStatus[list[Path]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        task_status.started(texts)  # type: ignore[arg-type]

    @trio_rpc.method
    async def ask(self, get: Callable[[list[str]], Awaitable[list[Path]]], texts: list[str]) -> str:
        try:
            return str(len(await get(texts)))
        except (DecodeError, InvalidArguments) as exc:
            return f"{type(exc).__name__} {exc.fate.name}: {exc}"

    @trio_rpc.method(raises=(Lost,))
    async def fail(self, texts: list[str]) -> None:
        raise Lost(texts)  # type: ignore[arg-type]

    @trio_rpc.notification
    async def note(self, paths: list[Path]) -> None:
        self.notes.append(len(paths))


async def test_arguments_are_refused_before_the_handler_runs():
    async with open_session_pair(Service(), options_a=SMALL) as (_, client):
        service = client.proxy("", Service)
        assert await service.take(FEW) == 50
        assert await service.take(FEW, FEW) == 100
        for args in ((MANY,), (FEW, ["a"] * 100)):  # the arguments of a call share the bound
            with pytest.raises(InvalidArguments, match=TEXT) as caught:
                await service.take(*args)
            assert caught.value.fate is Fate.NOT_STARTED
        assert await service.take_names(paths=FEW) == 50
        with pytest.raises(InvalidArguments, match=f"'paths': {TEXT}"):
            await service.take_names(paths=MANY)


async def test_a_result_is_refused_by_the_callers_own_limit():
    async with open_session_pair(Service(), options_b=SMALL) as (_, client):
        service = client.proxy("", Service)
        assert await service.echo(FEW) == [Path("a")] * 50
        with pytest.raises(DecodeError, match=f"result of .*: {TEXT}") as caught:
            await service.echo(MANY)
        assert caught.value.fate is Fate.STOPPED
        assert await service.take(MANY) == 150  # at the other end, the limit is larger


async def test_each_item_of_a_stream_has_its_own_bound():
    async with open_session_pair(Service(), options_b=SMALL) as (_, client):
        async with client.proxy("", Service).items() as items:
            assert len(await items.receive()) == 50
            with pytest.raises(DecodeError, match=TEXT):
                await items.receive()
            assert len(await items.receive()) == 50


async def test_a_started_value_is_refused():
    async with open_session_pair(Service(), options_b=SMALL) as (_, client):
        service = client.proxy("", Service)
        async with trio.open_nursery() as nursery:
            assert len(await nursery.start(service.start, FEW)) == 50
            with pytest.raises(DecodeError, match=f"started value of .*: {TEXT}") as caught:
                await nursery.start(service.start, MANY)
        assert caught.value.fate is Fate.STOPPED


async def test_the_result_of_a_callback_is_refused_in_the_handler():
    async def same(texts: list[str]) -> list[str]:
        return texts

    async with open_session_pair(Service(), options_a=SMALL) as (_, client):
        service = client.proxy("", Service)
        assert await service.ask(same, FEW) == "50"
        assert re.match(f"DecodeError STOPPED: .*{TEXT}", await service.ask(same, MANY))


async def test_the_arguments_of_a_callback_are_refused_at_its_owner():
    async def take(paths: list[Path]) -> list[str]:
        return [*map(str, paths)]

    async with open_session_pair(Service(), options_b=SMALL) as (_, client):
        service = client.proxy("", Service)
        assert await service.ask(take, FEW) == "50"
        answer = await service.ask(take, MANY)
        assert re.match(f"InvalidArguments NOT_STARTED: .*{TEXT}", answer)


async def test_an_exception_whose_attributes_are_too_costly_arrives_as_text():
    async with open_session_pair(Service(), options_b=SMALL) as (_, client):
        service = client.proxy("", Service)
        with pytest.raises(Lost) as caught:
            await service.fail(["a"] * 20)
        assert caught.value.paths == [Path("a")] * 20
        with pytest.raises(Lost) as caught:
            await service.fail(MANY)
        assert not hasattr(caught.value, "paths")
        assert "lost on its way" in caught.value.__notes__[0]


async def test_a_notification_that_is_too_costly_is_dropped(caplog):
    service = Service()
    async with open_session_pair(service, options_a=SMALL) as (_, client):
        await client.proxy("", Service).note(MANY)
        await client.proxy("", Service).note(FEW)
        await client.ping()
    assert service.notes == [50]
    assert "too costly to convert" in caplog.text
