"""The commands call, stream, describe and ping, run against a server in this process."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import trio
import trustme
from helpers.cli_tools import COMMAND, run_cli, running_cli

import trio_rpc
from trio_rpc.cli import calling
from trio_rpc.cli.connecting import Connection, Target
from trio_rpc.cli.exits import CallFailed, Exit, Unreachable, Usage
from trio_rpc.cli.output import Output

HOSTILE = "\x1b[2J\x07[red]no[/red]\n\u202e"


class Gone(Exception):
    pass


@dataclass
class Point:
    x: float
    y: float = 0


class Shop:
    def __init__(self) -> None:
        self.started = trio.Event()
        self.cleaned_up = trio.Event()

    @trio_rpc.method
    async def add(self, a: int, b: int = 1) -> int:
        """Add two numbers.

        The second line is not shown.
        """
        return a + b

    @trio_rpc.method
    async def echo(self, **values):
        return values

    @trio_rpc.stream
    async def count(self, start: int = 1) -> AsyncGenerator[int, None]:
        self.started.set()
        try:
            for number in range(start, start + 1000):
                yield number
                if number >= start + 2:
                    await trio.sleep_forever()
        finally:
            self.cleaned_up.set()

    @trio_rpc.method
    async def mirror(self, point: Point) -> Point:
        return Point(point.y, point.x)

    @trio_rpc.method
    async def colliding(self, kind: str) -> Any:
        made: dict[str, Any] = {
            "int": {1: "one", "1": "text"},
            "bytes": {b"\0": 1, "AA==": 2},
            "within": [{"x": {True: 1, "true": 2}}],
        }
        return made[kind]

    @trio_rpc.method
    async def odd(self):
        return {
            1: b"\x00",
            "set": {1},
            "time": datetime(2024, 5, 6, tzinfo=UTC),
            "delta": timedelta(seconds=1.5),
            "decimal": Decimal("1.10"),
            "uuid": UUID(int=1),
            "numbers": (1, math.nan, math.inf),
            "text": HOSTILE,
        }

    @trio_rpc.method(raises=(Gone,))
    async def fail(self, how: str) -> None:
        """Fail."""
        if how == "group":
            raise ExceptionGroup("several", [ValueError("a"), Gone("b")])
        if how == "long":
            raise Gone("x" * 5000)
        raise {"declared": Gone, "built in": KeyError, "hostile": OSError}[how](HOSTILE)

    @trio_rpc.method
    async def hold(self) -> None:
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cleaned_up.set()

    @trio_rpc.notification
    async def log(self, line: str) -> None:
        """Log a line."""


class Liar:
    def __init__(self, answer):
        self.answer = answer

    @trio_rpc.method
    async def describe(self):
        return self.answer


@asynccontextmanager
async def shop(**options):
    service = Shop()
    async with trio_rpc.open_server({"shop": service}, "tcp://127.0.0.1:0", **options) as server:
        yield service, Target(url=server.urls[0])


async def call(target, method, arguments="[]", *, patience=math.inf, as_json=True):
    await calling.call(target, method, arguments, Output(as_json=as_json), patience=patience)


# ── call ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "arguments", "result"),
    [
        ("shop.add", "[1, 2]", 3),
        ("shop.add", '{"a": 1}', 2),
        ("shop.mirror", '[{"x": 1, "y": 2}]', {"x": 2, "y": 1}),
        ("shop.echo", '{"abandon_on_cancel": 1, "method": 2, "timeout": 3}', None),
    ],
)
async def test_a_result_is_printed_as_one_line_of_json(method, arguments, result, capsys):
    async with shop() as (_, target):
        await call(target, method, arguments)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == (json.loads(arguments) if result is None else result)


@pytest.mark.parametrize("as_json", [False, True])
async def test_values_without_a_json_form_are_printed_as_escaped_text(as_json, capsys):
    async with shop() as (_, target):
        await call(target, "shop.odd", as_json=as_json)
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.split("\n"))
    assert out.isascii() or not as_json
    assert json.loads(out) == {
        "1": "AA==",
        "set": [1],
        "time": "2024-05-06T00:00:00+00:00",
        "delta": 1.5,
        "decimal": "1.10",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "numbers": [1, "nan", "inf"],
        "text": HOSTILE,
    }


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("kind", ["int", "bytes", "within"])
async def test_a_result_whose_keys_collide_in_json_is_an_error(kind, as_json, capsys):
    async with shop() as (_, target):
        with pytest.raises(CallFailed, match=r"cannot be shown as JSON.* appears twice") as caught:
            await call(target, "shop.colliding", f'["{kind}"]', as_json=as_json)
    assert capsys.readouterr().out == ""
    assert caught.value.code == Exit.FAILED


@pytest.mark.parametrize(
    ("method", "arguments", "text"),
    [
        ("shop.fail", '["declared"]', r"Gone: \x1b[2J\x07[red]no[/red]\n\u202e"),
        ("shop.fail", '["built in"]', "KeyError: "),
        ("shop.fail", '["group"]', "several (ValueError: a; Gone: b)"),
        ("shop.add", '["x"]', "InvalidArguments: shop.add() parameter 'a'"),
        ("shop.nothing", "[]", "MethodNotFound: "),
        ("shop.log", '["x"]', "MethodNotFound: "),
        ("__class__", "[]", "MethodNotFound: "),
        ("\x1b[2J", "[]", "MethodNotFound: "),
        ("", "[]", "MethodNotFound: "),
    ],
)
async def test_a_failed_call_is_reported_in_one_printable_line(method, arguments, text):
    async with shop() as (_, target):
        with pytest.raises(CallFailed) as caught:
            await call(target, method, arguments)
    line = str(caught.value)
    assert text in line
    assert line.isprintable()
    assert caught.value.code == Exit.FAILED


async def test_a_long_error_text_is_truncated():
    async with shop() as (_, target):
        with pytest.raises(CallFailed, match="5000 characters") as caught:
            await call(target, "shop.fail", '["long"]')
    assert len(str(caught.value)) < 500


async def test_a_failed_call_is_reported_with_its_fate():
    async with shop() as (_, target):
        with pytest.raises(CallFailed, match="the handler never ran") as caught:
            await call(target, "shop.nothing")
    assert caught.value.details["fate"] == "not started"


async def test_a_timeout_is_reported_after_the_handler_has_been_cancelled(autojump_clock):
    async with shop() as (service, target):
        with pytest.raises(CallFailed, match="no result in time"):
            await call(target, "shop.hold", patience=0.5)
        assert service.cleaned_up.is_set()


async def test_credentials_are_sent_when_connecting():
    async def check(session, credentials):
        if credentials != {"token": "t"}:
            raise trio_rpc.Refused("who are you?")

    async with shop(authenticate=check) as (_, target):
        with pytest.raises(Unreachable, match=r"who are you\?"):
            await call(target, "shop.add", "[1]")
        await call(
            Target(url=target.url, connection=Connection(credentials='{"token": "t"}')),
            "shop.add",
            "[1]",
        )


async def test_a_value_that_cannot_be_encoded_is_a_usage_error():
    async with shop() as (_, target):
        with pytest.raises(Usage, match="cannot be sent"):
            await call(target, "shop.echo", json.dumps({"x": 1 << 9000}))


async def test_ctrl_c_during_a_call_cancels_its_handler():
    """Ctrl-C cancels the handler, ends the program, and does not break Trio's run loop."""
    async with shop() as (service, target):
        arguments = ("call", target.url, "shop.hold")
        async with running_cli(*arguments) as command:
            await service.started.wait()
            command.process.send_signal(signal.SIGINT)
            await service.cleaned_up.wait()
            assert await command.process.wait() == Exit.INTERRUPTED


async def test_call_runs_as_a_program():
    async with shop() as (_, target):
        done = await run_cli("call", target.url, "shop.add", "[1, 2]")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"3\n", b"")
        done = await run_cli("call", target.url, "shop.fail", '["hostile"]', "--json")
        assert (done.returncode, done.stdout) == (1, b"")
        assert json.loads(done.stderr)["error"]["type"] == "OSError"


async def test_a_closed_output_pipe_prints_no_traceback():
    async with shop() as (_, target):
        process = await trio.lowlevel.open_process(
            [*COMMAND, "call", target.url, "shop.echo", json.dumps({"x": "y" * 100_000})],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        await process.stdout.aclose()
        with trio.fail_after(60):
            err = b"".join([part async for part in process.stderr])
            assert (await process.wait(), err) == (1, b"")
        await process.stderr.aclose()


# ── stream ───────────────────────────────────────────────────────────────────────────────────


async def stream(target, method, arguments="[]", *, count=math.inf, patience=math.inf):
    output = Output(as_json=True)
    await calling.stream(target, method, arguments, output, count=count, patience=patience)


async def test_each_item_of_a_stream_is_printed_on_a_line(capsys):
    async with shop() as (service, target):
        await stream(target, "shop.count", "[7]", count=2)
        assert service.cleaned_up.is_set()
    assert capsys.readouterr().out == "7\n8\n"


async def test_a_timeout_ends_a_stream_and_its_generator(autojump_clock, capsys):
    async with shop() as (service, target):
        await stream(target, "shop.count", patience=5)
        assert service.cleaned_up.is_set()
    assert capsys.readouterr().out == "1\n2\n3\n"


async def test_streaming_a_plain_method_is_an_error_of_one_line():
    async with shop() as (_, target):
        with pytest.raises(CallFailed, match=r"shop\.add: .*method"):
            await stream(target, "shop.add", "[1]")


async def test_stream_runs_as_a_program():
    async with shop() as (_, target):
        done = await run_cli("stream", target.url, "shop.count", "--count", "3", "--json")
        assert (done.returncode, done.stdout) == (Exit.OK, b"1\n2\n3\n")
        done = await run_cli("stream", target.url, "shop.count", "--count", "0")
        assert done.returncode == Exit.USAGE


# ── describe ─────────────────────────────────────────────────────────────────────────────────


async def test_describe_prints_readable_lines(capsys):
    async with shop() as (_, target):
        await calling.describe(target, Output(as_json=False))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shop"
    assert "  add(a: int, b: int = 1) -> int" in lines
    assert lines[lines.index("  add(a: int, b: int = 1) -> int") + 1] == "      Add two numbers."
    assert "  fail(how: str) -> None  raises Gone" in lines
    assert "  log(line: str) -> None  notification" in lines


async def test_describe_prints_the_fields_of_types(capsys):
    async with shop() as (_, target):
        await calling.describe(target, Output(as_json=False))
        text = capsys.readouterr().out
        await calling.describe(target, Output(as_json=True))
    assert "\n\nPoint\n  x: float\n  y: float  optional\n" in text
    [point] = [one for each in json.loads(capsys.readouterr().out) for one in each["types"]]
    assert point == {
        "name": "Point",
        "fields": [
            {"name": "x", "type": "float", "required": True},
            {"name": "y", "type": "float", "required": False},
        ],
    }


async def test_describe_prints_json(capsys):
    async with shop() as (_, target):
        await calling.describe(target, Output(as_json=True))
    described = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert described["shop.fail"] == {
        "name": "shop.fail",
        "kind": "method",
        "signature": "(how: str) -> None",
        "doc": "Fail.",
        "raises": ["Gone"],
        "types": [],
    }
    assert not any(name.startswith("trio_rpc.") for name in described)


async def test_describe_escapes_and_truncates_the_peers_text(capsys, monkeypatch):
    monkeypatch.setattr(calling, "DESCRIBE", "liar.describe")
    hostile = {
        "name": f"{HOSTILE}.{HOSTILE}",
        "kind": HOSTILE,
        "signature": HOSTILE + "x" * 10_000,
        "doc": HOSTILE * 10_000,
        "raises": [HOSTILE] * 1000,
        "types": [{"name": HOSTILE, "fields": [{"name": HOSTILE, "type": HOSTILE + "x" * 10_000}]}],
    }
    async with trio_rpc.open_server({"liar": Liar([hostile])}, "tcp://127.0.0.1:0") as server:
        await calling.describe(Target(url=server.urls[0]), Output(as_json=False))
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert "[red]" in out
    assert len(out) < 10_000


@pytest.mark.parametrize(
    "answer", [None, "x", {}, [1], [{"name": 1}], [{"raises": [1]}], [{"name": "a", "types": [1]}]]
)
async def test_an_unknown_form_of_description_is_an_error_of_one_line(answer, monkeypatch):
    monkeypatch.setattr(calling, "DESCRIBE", "liar.describe")
    async with trio_rpc.open_server({"liar": Liar(answer)}, "tcp://127.0.0.1:0") as server:
        with pytest.raises(CallFailed, match="describes itself in another way"):
            await calling.describe(Target(url=server.urls[0]), Output(as_json=False))


async def test_describing_a_peer_without_introspection_is_an_error(monkeypatch):
    monkeypatch.setattr(calling, "DESCRIBE", "nothing.describe")
    async with shop() as (_, target):
        with pytest.raises(CallFailed, match="does not describe itself"):
            await calling.describe(target, Output(as_json=False))


async def test_describe_of_a_peer_without_methods_says_so(capsys):
    async with trio_rpc.open_server(None, "tcp://127.0.0.1:0") as server:
        await calling.describe(Target(url=server.urls[0]), Output(as_json=False))
    assert capsys.readouterr().out == "no methods are offered\n"


# ── ping ─────────────────────────────────────────────────────────────────────────────────────


async def test_ping_prints_readable_lines(capsys):
    async with shop() as (_, target):
        await calling.ping(target, Output(as_json=False), count=3, interval=0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["1/3", "2/3", "3/3"]
    assert lines[3].startswith("3 answers: min ")


async def test_ping_prints_json(capsys):
    async with shop() as (_, target):
        await calling.ping(target, Output(as_json=True), count=2, interval=0)
    report = json.loads(capsys.readouterr().out)
    assert (report["url"], report["count"]) == (target.url, 2)
    assert 0 < report["min_ms"] <= report["p50_ms"] <= report["p99_ms"] <= report["max_ms"]


PLUGIN = f"exec:{sys.executable} examples/plugins"


async def test_an_exec_url_starts_a_child_process():
    done = await run_cli("describe", f"{PLUGIN}/shout.py", "--json")
    assert done.returncode == Exit.OK
    assert done.stderr == b""
    assert [each["name"] for each in json.loads(done.stdout)] == ["render"]


@pytest.mark.parametrize(
    ("url", "code", "complaint"),
    [
        (f"{PLUGIN}/nothing.py", Exit.UNREACHABLE, "ended with exit code 2"),
        ("exec:no-such-program", Exit.UNREACHABLE, "cannot start no-such-program: No such file"),
        ("exec:", Exit.USAGE, "the command is empty"),
        ("exec:'x", Exit.USAGE, "No closing quotation"),
    ],
)
async def test_a_child_process_that_does_not_start_is_an_error(url, code, complaint):
    done = await run_cli("ping", url)
    assert done.returncode == code
    assert done.stdout == b""
    assert complaint in done.stderr.decode().splitlines()[-1]


async def test_a_certificate_for_a_child_process_is_refused(tmp_path):
    certificate = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(certificate)
    with pytest.raises(Usage, match="is not encrypted"):
        await calling.describe(
            Target(url="exec:true", connection=Connection(ca=certificate)), Output(as_json=False)
        )
