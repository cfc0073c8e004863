"""Errors of calls through a gateway tell whether the handler has started (law 15).

The calls are made with a WebSocket and without.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from helpers.gateway_tools import hosting

import trio_rpc
from trio_rpc import Fate
from trio_rpc.gateway import Gateway, Message


class Slow(trio_rpc.Overloaded):
    """An application's own refusal."""


class Service:
    def __init__(self, exc):
        self.ran = 0
        self.exc = exc

    @trio_rpc.method
    async def work(self, found: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.ran += 1

    @trio_rpc.method(raises=(trio_rpc.Overloaded, trio_rpc.Unavailable))
    async def fail(self, found: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.ran += 1
        raise self.exc


async def call(name, exc, filters, *, with_callback):
    """Call a method by the Python client, and return its error and whether its handler has run."""
    service = Service(exc)

    async def ignore(_number):
        pass

    async with hosting(Gateway(service, filters=filters)) as url:
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        with pytest.raises(trio_rpc.CallError) as caught:
            await message.post(name, {}, {"found": ignore} if with_callback else {})
    return caught.value, service.ran == 1


ERRORS = [
    trio_rpc.Overloaded("no"),
    trio_rpc.Unavailable("no"),
    Slow("no"),
    PermissionError("no"),
    trio_rpc.CallError("no"),
]


@pytest.mark.parametrize("with_callback", [True, False])
@pytest.mark.parametrize("exc", ERRORS, ids=lambda exc: type(exc).__name__)
async def test_law_15_a_call_refused_by_a_gateways_filter_has_not_started(exc, with_callback):
    async def refuse(_call, _proceed):
        raise exc

    error, has_run = await call("work", None, [refuse], with_callback=with_callback)
    assert (error.fate, has_run) == (Fate.NOT_STARTED, False)


@pytest.mark.parametrize("with_callback", [True, False])
@pytest.mark.parametrize("exc", ERRORS, ids=lambda exc: type(exc).__name__)
async def test_law_15_an_error_of_a_gateways_filter_after_the_handler_has_the_fate_stopped(
    exc, with_callback
):
    async def fail(_call, proceed):
        await proceed()
        raise exc

    error, has_run = await call("work", None, [fail], with_callback=with_callback)
    assert (error.fate, has_run) == (Fate.STOPPED, True)


@pytest.mark.parametrize("with_callback", [True, False])
@pytest.mark.parametrize("exc", ERRORS, ids=lambda exc: type(exc).__name__)
async def test_law_15_an_error_of_a_gateways_handler_has_the_fate_stopped(exc, with_callback):
    error, has_run = await call("fail", exc, [], with_callback=with_callback)
    assert (error.fate, has_run) == (Fate.STOPPED, True)
