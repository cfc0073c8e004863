"""serve, as its own process: ended by signals or by the end of its standard input."""

from __future__ import annotations

import logging
import signal

import pytest
import trio
from helpers.cli_tools import run_cli, running_cli

import trio_rpc
from trio_rpc.cli.exits import Exit
from trio_rpc.cli.serving import EscapingFormatter

MODULE = """
import trio
import trio_rpc

class Gate:
    @trio_rpc.method
    async def wait(self) -> str:
        await trio_rpc.current_call().session.call("ask")
        return "through"

    @trio_rpc.method
    async def hold(self) -> None:
        print("holding", flush=True)
        await trio.sleep_forever()

    @trio_rpc.method
    async def cling(self) -> None:
        print("clinging", flush=True)
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

class Greeter:
    def __init__(self, session):
        self._session = session

    @trio_rpc.method
    async def greet(self) -> str:
        return f"hello {self._session.credentials}"

services = {"gate": Gate()}

def crooked(session):
    raise ValueError("not for you")
"""


class Keeper:
    """A client whose call of gate.wait is in flight until ``leave`` is set."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.leave = trio.Event()
        self.outcome: object = None

    @trio_rpc.method
    async def ask(self) -> None:
        self.asked.set()
        await self.leave.wait()

    async def hold(self, url: str) -> None:
        async with trio_rpc.connect(url, self) as session:
            try:
                self.outcome = await session.call("gate.wait")
            except trio_rpc.RpcError as exc:
                self.outcome = exc


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "gate_service.py").write_text(MODULE)
    return tmp_path


def serving(folder, *options, services="services"):
    target = f"gate_service:{services}"
    return running_cli(
        "serve", target, "--listen", "tcp://127.0.0.1:0", "--json", *options, cwd=folder
    )


async def test_bound_urls_are_printed(folder):
    socket = folder / "gate.sock"
    command = ("serve", "gate_service:services", "--listen", "tcp://127.0.0.1:0")
    async with running_cli(*command, "--listen", f"unix://{socket}", cwd=folder) as server:
        first, second = await server.line(), await server.line()
        assert first.startswith("listening at tcp://127.0.0.1:")
        assert not first.endswith(":0")
        assert second == f"listening at unix://{socket}"
        server.process.terminate()
        line = await server.line()
        assert line.startswith("SIGTERM: draining 0 sessions, up to 5 s ")
        assert await server.line() == "stopped"
        assert await server.process.wait() == 0
    assert not socket.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_after_a_signal_an_in_flight_call_may_finish(folder, number):
    keeper = Keeper()
    async with serving(folder, "--grace", "600") as server, trio.open_nursery() as nursery:
        (url,) = (await server.event())["urls"]
        nursery.start_soon(keeper.hold, url)
        await keeper.asked.wait()
        server.process.send_signal(number)
        draining = {"event": "draining", "cause": number.name, "grace": 600.0, "sessions": 1}
        assert await server.event() == draining
        with pytest.raises((OSError, trio_rpc.RpcError)):  # refused, or reset in the backlog
            await keeper.hold(url)
        keeper.leave.set()
        assert await server.event() == {"event": "stopped", "at_once": False}
        assert await server.process.wait() == 0
    assert keeper.outcome == "through"


async def test_a_call_that_outlasts_the_grace_period_is_cancelled(folder):
    keeper = Keeper()
    async with serving(folder, "--grace", "0.05") as server, trio.open_nursery() as nursery:
        (url,) = (await server.event())["urls"]
        nursery.start_soon(keeper.hold, url)
        await keeper.asked.wait()
        server.process.terminate()
        assert (await server.event())["event"] == "draining"
        assert await server.event() == {"event": "stopped", "at_once": False}
        assert await server.process.wait() == 0
    assert isinstance(keeper.outcome, trio_rpc.RpcError)


async def test_a_second_signal_stops_at_once(folder):
    keeper = Keeper()
    async with serving(folder, "--grace", "600") as server, trio.open_nursery() as nursery:
        (url,) = (await server.event())["urls"]
        nursery.start_soon(keeper.hold, url)
        await keeper.asked.wait()
        server.process.terminate()
        assert (await server.event())["event"] == "draining"
        server.process.send_signal(signal.SIGINT)
        assert await server.event() == {"event": "stopped", "at_once": True}
        assert await server.process.wait() == 128 + signal.SIGINT
    assert isinstance(keeper.outcome, trio_rpc.RpcError)


@pytest.mark.parametrize("grace", ["0.01", "600"])
async def test_a_signal_after_the_drain_kills_a_server_whose_handler_does_not_end(folder, grace):
    async with serving(folder, "--grace", grace) as server, trio.open_nursery() as nursery:
        (url,) = (await server.event())["urls"]
        session = await trio_rpc.connect_in(nursery, url)
        nursery.start_soon(raises_rpc_error, session, "gate.cling")
        assert await server.line() == "clinging"
        server.process.terminate()
        assert (await server.event())["event"] == "draining"
        if grace == "600":
            server.process.terminate()
        assert (await server.event())["event"] == "stopped"
        server.process.terminate()
        with trio.fail_after(30):
            assert await server.process.wait() == -signal.SIGTERM
        nursery.cancel_scope.cancel()


async def raises_rpc_error(session, method):
    with pytest.raises(trio_rpc.RpcError):
        await session.call(method)


async def test_a_call_exits_with_code_3_when_its_server_is_killed(folder):
    async with serving(folder) as server:
        (url,) = (await server.event())["urls"]
        async with running_cli("call", url, "gate.hold", "--json") as caller:
            assert await server.line() == "holding"
            server.process.kill()
            assert await caller.process.wait() == Exit.UNREACHABLE


async def test_the_server_stops_at_the_end_of_standard_input(folder):
    async with serving(folder, "--until-stdin-closes") as server:
        assert (await server.event())["event"] == "listening"
        await server.process.stdin.aclose()
        assert (await server.event())["cause"] == "the end of standard input"
        assert (await server.event())["event"] == "stopped"
        assert await server.process.wait() == 0


async def test_the_server_ignores_standard_input_by_default(folder):
    async with serving(folder) as server:
        await server.process.stdin.aclose()  # at its end before the server could read it
        (url,) = (await server.event())["urls"]
        for _ in range(20):
            async with trio_rpc.connect(url) as session:
                await session.ping()
        server.process.send_signal(signal.SIGTERM)
        assert (await server.event())["cause"] == "SIGTERM"
        assert (await server.event())["event"] == "stopped"


async def test_a_service_class_is_instantiated_for_each_session(folder):
    async with serving(folder, services="Greeter") as server:
        (url,) = (await server.event())["urls"]
        for name in ("ann", "bob"):
            async with trio_rpc.connect(url, credentials=name) as session:
                assert await session.call("greet") == f"hello {name}"


async def test_a_services_function_that_fails_ends_its_session_only(folder):
    async with serving(folder, services="crooked") as server:
        (url,) = (await server.event())["urls"]
        for _ in range(2):
            with pytest.raises(trio_rpc.RpcError):
                async with trio_rpc.connect(url):
                    pass


def test_control_characters_in_the_log_are_escaped():
    formatter = EscapingFormatter("%(levelname)s %(message)s")
    error = ValueError("\x1b[2J\nmore")
    record = logging.LogRecord(
        "trio_rpc", logging.ERROR, __file__, 1, "peer %s", ("\x1b[2J\n",), (ValueError, error, None)
    )
    first, *rest = formatter.format(record).split("\n")
    assert first == "ERROR peer \\x1b[2J\\n"
    assert all(line.isprintable() for line in rest)


async def test_serving_sessions_that_resume():
    async with running_cli(
        "serve", "examples.market:services", "--listen", "tcp://127.0.0.1:0", "--resume", "--json"
    ) as server:
        [url] = (await server.event())["urls"]
        async with trio_rpc.connect(url, resume=True) as session:
            assert await session.call("market.price", "BTC") == 97_000
        assert (await run_cli("ping", url)).returncode == Exit.OK


async def test_serving_and_calling_over_a_websocket():
    async with running_cli(
        "serve",
        "examples.market:services",
        "--listen",
        "ws://127.0.0.1:0/rpc",
        "--allow-origin",
        "https://example.org",
        "--json",
    ) as server:
        [url] = (await server.event())["urls"]
        assert url.startswith("ws://127.0.0.1:")
        called = await run_cli("call", url, "market.price", '["BTC"]')
        assert (called.returncode, called.stderr) == (0, b"")
        missed = await run_cli("ping", url.removesuffix("/rpc"))
        assert missed.returncode == Exit.UNREACHABLE
        assert missed.stderr.count(b"\n") == 1
        assert b"404 Not Found" in missed.stderr
