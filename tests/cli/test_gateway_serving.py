"""serve --listen http://…: a gateway for browsers, alone or along with other URLs."""

from __future__ import annotations

import signal

import httpx
import pytest
import trio
from helpers.cli_tools import run_cli, running_cli

import trio_rpc
from trio_rpc.gateway import Message

MODULE = """
from collections.abc import Awaitable, Callable

import trio
import trio_rpc

class Scanner:
    def __init__(self):
        self.held = trio.Event()

    @trio_rpc.method
    async def scan(self, count: int, found: Callable[[int], Awaitable[None]]) -> int:
        for number in range(count):
            await found(number)
        return count

    @trio_rpc.method
    async def hold(self) -> str:
        print("holding", flush=True)
        await self.held.wait()
        return "let go"

    @trio_rpc.method
    async def let_go(self) -> None:
        self.held.set()

services = Scanner()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scan_service.py").write_text(MODULE)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.html").write_text("<h1>hello</h1>")
    (tmp_path / "secret.txt").write_text("no page")
    return tmp_path


def serving(folder, *options):
    return running_cli(
        "serve",
        "scan_service:services",
        "--listen",
        "http://127.0.0.1:0",
        "--json",
        *options,
        cwd=folder,
    )


async def test_a_gateway_beside_another_url(folder):
    async with serving(folder, "--listen", "tcp://127.0.0.1:0", "--pages", "pages") as server:
        tcp, url = (await server.event())["urls"]
        async with trio_rpc.connect(tcp) as session:
            await session.call("let_go")
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/")).text == "<h1>hello</h1>"
            assert (await http.get("/../secret.txt")).status_code == 404
            assert (await http.get("/..%2fsecret.txt")).status_code == 404
            got = await http.post("/api/hold", json={})
            assert got.json()["payload"] == "let go"
        assert await server.line() == "holding"


async def test_after_a_signal_calls_of_browsers_may_finish(folder):
    async with serving(folder, "--grace", "600", "--listen", "tcp://127.0.0.1:0") as server:
        tcp, url = (await server.event())["urls"]
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        async with trio_rpc.connect(tcp, on_end="keep") as session, message.connect():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(message.post, "hold")
                assert await server.line() == "holding"
                nursery.start_soon(session.call, "hold")
                assert await server.line() == "holding"
                server.process.send_signal(signal.SIGTERM)
                assert (await server.event())["sessions"] == 2
                with pytest.raises(trio_rpc.Unavailable):
                    await message.post("let_go")
                nursery.cancel_scope.cancel()
            assert await server.event() == {"event": "stopped", "at_once": False}
            assert await server.process.wait() == 0


async def test_only_allowed_hosts_are_accepted(folder):
    async with serving(folder, "--allow-host", "my.example") as server:
        [url] = (await server.event())["urls"]
        async with httpx.AsyncClient(base_url=url) as http:
            for host, status in (("my.example", 200), ("localhost", 403)):
                got = await http.post("/api/let_go", json={}, headers={"Host": host})
                assert got.status_code == status


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--listen", "http://192.0.2.1:0"), b"cannot listen"),
        (("--listen", "http://127.0.0.1:0/path"), b"accepted are"),
        (("--listen", "https://127.0.0.1:0"), b"requires --cert"),
        (("--listen", "http://127.0.0.1:0", "--pages", "nowhere"), b"is not a directory"),
        (("--listen", "tcp://127.0.0.1:0", "--pages", "docs"), b"--pages requires"),
        (("--listen", "tcp://127.0.0.1:0", "--allow-host", "x"), b"--allow-host requires"),
        (("--listen", "http://127.0.0.1:0", "--allow-origin", "x"), b"is not an origin"),
    ],
)
async def test_a_bad_option_is_reported_in_one_line(folder, arguments, complaint):
    done = await run_cli("serve", "scan_service:services", *arguments, cwd=folder)
    assert done.returncode in {2, 3}
    assert complaint in done.stderr
    assert done.stderr.count(b"\n") == 1
