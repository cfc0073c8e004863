"""The commands bench and notify, callbacks, metadata, arguments from files, and TLS options."""

from __future__ import annotations

import io
import json
import math
import ssl
import sys
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

import trio_rpc
from trio_rpc.cli import benching, calling, main
from trio_rpc.cli.arguments import parse_arguments
from trio_rpc.cli.benching import MOST_KINDS, Bench
from trio_rpc.cli.connecting import Connection, Target, parse_metadata
from trio_rpc.cli.credentials_file import check_against
from trio_rpc.cli.exits import CallFailed, Exit, Unreachable, Usage
from trio_rpc.cli.output import Output


class Works:
    def __init__(self):
        self.calls = self.most = self.running = 0
        self.notes = []

    @trio_rpc.method
    async def work(self, number: int) -> int:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await trio.lowlevel.checkpoint()
        self.running -= 1
        return number

    @trio_rpc.method
    async def wait_for(self, running: int) -> None:
        self.running += 1
        while self.running < running:
            await trio.lowlevel.checkpoint()

    @trio_rpc.method
    async def fail_each_time(self) -> None:
        self.calls += 1
        raise type(f"Error{self.calls}", (Exception,), {})("\x1b[2J")

    @trio_rpc.method
    async def metadata(self) -> dict:
        return dict(trio_rpc.current_call().metadata)

    @trio_rpc.method
    async def job(self, on_progress, on_text=None) -> str:
        await on_progress(0.5)
        if on_text is not None:
            await on_text("\x1b[2J", lines=[1, 2])
        return "done"

    @trio_rpc.notification
    async def note(self, text: str) -> None:
        self.notes.append(text)


@asynccontextmanager
async def works(url="tcp://127.0.0.1:0", *, connection=Connection(), **options):  # noqa: B008
    service = Works()
    async with trio_rpc.open_server({"works": service}, url, **options) as server:
        yield service, Target(url=server.urls[0], connection=connection)


def bench(target, method, *args, callers=1, count=math.inf, duration=math.inf):
    return Bench(target, f"works.{method}", list(args), {}, callers, count, duration)


# ── bench ────────────────────────────────────────────────────────────────────────────────────


async def test_bench_makes_so_many_calls_with_so_many_in_flight(capsys):
    async with works() as (service, target):
        run = bench(target, "work", 7, callers=8, count=50)
        await run.run(Output(as_json=True))
    run.sum_up(Output(as_json=True))
    result = json.loads(capsys.readouterr().out)
    assert service.calls == 50
    assert service.most <= 8
    assert (result["count"], result["callers"], result["errors"]) == (50, 8, {})
    assert result["min_ms"] <= result["p50_ms"] <= result["p99.9_ms"] <= result["max_ms"]


async def test_bench_keeps_its_callers_busy():
    async with works() as (_, target):
        await bench(target, "wait_for", 8, callers=8, count=8).run(Output(as_json=True))


async def test_bench_begins_no_call_after_its_duration():
    async with works() as (service, target):
        run = bench(target, "work", 7, callers=2, duration=1e-9)
        await run.run(Output(as_json=True))
    assert service.calls == 0
    run.sum_up(Output(as_json=True))  # even without any call


async def test_bench_counts_calls_that_fail_and_then_fails(capsys):
    async with works() as (_, target):
        run = bench(target, "fail_each_time", count=MOST_KINDS + 5)
        await run.run(Output(as_json=False))
    run.sum_up(Output(as_json=False))
    with pytest.raises(CallFailed, match=f"{MOST_KINDS + 5} calls of {MOST_KINDS + 5} failed"):
        run.check()
    assert len(run.errors) == MOST_KINDS + 1
    assert run.errors["others"] == 5
    assert "\x1b" not in capsys.readouterr().out


async def test_bench_ends_at_once_when_every_call_would_fail():
    async with works() as (_, target):
        with pytest.raises(ExceptionGroup) as failed:
            await bench(target, "nothing", count=10, callers=2).run(Output(as_json=True))
    error = failed.value.subgroup(CallFailed)
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert error.details["type"] == "MethodNotFound"


async def test_the_histogram_has_every_call(capsys):
    async with works() as (_, target):
        run = bench(target, "work", 7, count=30)
        await run.run(Output(as_json=False))
    run.sum_up(Output(as_json=False))
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line[:1] == "≤"]
    assert sum(int(row[3]) for row in rows) == 30


# ── notify, callbacks, metadata ──────────────────────────────────────────────────────────────


async def test_a_notification_arrives():
    async with works() as (service, target):
        await calling.notify(target, "works.note", '["hello"]')
        while not service.notes:
            await trio.lowlevel.checkpoint()
    assert service.notes == ["hello"]


async def test_the_arguments_of_callbacks_are_printed_in_order(capsys):
    async with works() as (_, target):
        for output in (Output(as_json=True), Output(as_json=False)):
            await calling.call(
                target,
                "works.job",
                "[]",
                output,
                patience=math.inf,
                callbacks=["on_progress", "on_text"],
            )
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[0]) == {"callback": "on_progress", "args": [0.5], "kwargs": {}}
    assert json.loads(lines[1])["args"] == ["\x1b[2J"]
    assert lines[2:] == [
        '"done"',
        "on_progress(0.5)",
        r'on_text("\u001b[2J", lines=[1, 2])',
        '"done"',
    ]


async def test_a_callback_that_is_also_an_argument_is_a_usage_error():
    with pytest.raises(Usage, match="--callback on_text is already among the arguments"):
        await calling.call(
            Target(url="tcp://127.0.0.1:1"),
            "works.job",
            '{"on_text": 1}',
            Output(as_json=True),
            patience=1,
            callbacks=["on_text"],
        )


async def test_metadata_travels_with_the_call(capsys):
    async with works() as (_, target):
        sent = Target(url=target.url, metadata=parse_metadata(["a=1", "b=x=y"]))
        await calling.call(sent, "works.metadata", "[]", Output(as_json=True), patience=math.inf)
    assert json.loads(capsys.readouterr().out) == {"a": "1", "b": "x=y"}


@pytest.mark.parametrize("entries", [["a"], ["=1"], ["a=1", "a=2"]])
def test_metadata_that_is_not_name_and_value_is_a_usage_error(entries):
    with pytest.raises(Usage, match="--metadata"):
        parse_metadata(entries)


# ── arguments ────────────────────────────────────────────────────────────────────────────────


def test_arguments_come_from_a_file_or_from_standard_input(tmp_path, monkeypatch):
    path = tmp_path / "arguments.json"
    path.write_text('{"a": [1]}', "utf-8")
    assert parse_arguments(f"@{path}") == ([], {"a": [1]})
    monkeypatch.setattr("sys.stdin", io.StringIO("[1, 2]"))
    assert parse_arguments("@-") == ([1, 2], {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("BTC", r"column 1 of BTC: did you mean '\[\"BTC\"\]'\?"),
        ("3", r"did you mean '\[3\]'\?"),
        ("", "must be JSON, a list or an object, not empty"),
        ("[BTC]", "column 2 of .BTC.$"),
    ],
)
def test_arguments_that_are_not_json_get_a_hint(text, said):
    with pytest.raises(Usage, match=said):
        parse_arguments(text)


def test_a_file_that_has_no_arguments_is_a_usage_error(tmp_path):
    with pytest.raises(Usage, match="No such file"):
        parse_arguments(f"@{tmp_path}/nothing")
    with pytest.raises(Usage, match="directory"):
        parse_arguments(f"@{tmp_path}")
    with pytest.raises(Usage, match="@ requires the name of a file"):
        parse_arguments("@")
    path = tmp_path / "bad"
    path.write_bytes(b"\xff")
    with pytest.raises(Usage, match="not UTF-8"):
        parse_arguments(f"@{path}")
    path.write_text("[1", "utf-8")
    with pytest.raises(Usage, match=r"bad must be JSON: .* column 3"):
        parse_arguments(f"@{path}")


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def certificates(tmp_path):
    """Write an authority, a server's certificate for another name, and a client's certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("me@example.org").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "client.pem"
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("inner.example").configure_cert(server)
    authority.configure_trust(server)
    return tmp_path, server


async def add(target):
    await calling.call(target, "works.work", "[1]", Output(as_json=True), patience=math.inf)


async def test_the_name_that_a_certificate_must_have_can_be_chosen(certificates):
    folder, server = certificates
    for name, is_right in (("inner.example", True), ("other.example", False), (None, False)):
        connection = Connection(ca=folder / "ca.pem", server_name=name)
        async with works("tls://127.0.0.1:0", ssl_context=server, connection=connection) as (
            _,
            target,
        ):
            if is_right:
                await add(target)
            else:
                with pytest.raises(Unreachable, match="certificate"):
                    await add(target)


async def test_insecure_accepts_any_certificate(certificates):
    connection = Connection(insecure=True)
    async with works("wss://127.0.0.1:0/", ssl_context=certificates[1], connection=connection) as (
        _,
        target,
    ):
        await add(target)


async def test_a_client_certificate_is_presented(certificates):
    folder, server = certificates
    server.verify_mode = ssl.CERT_REQUIRED
    given = {"ca": folder / "ca.pem", "server_name": "inner.example"}
    async with works("tls://127.0.0.1:0", ssl_context=server) as (_, target):
        with pytest.raises(Unreachable):
            await add(Target(url=target.url, connection=Connection(**given)))
        await add(
            Target(url=target.url, connection=Connection(**given, cert=folder / "client.pem"))
        )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"key": "k"}, "--key requires --cert"),
        ({"insecure": True, "ca": "c"}, "--insecure accepts any certificate"),
        ({"insecure": True, "server_name": "c"}, "--insecure accepts any certificate"),
        ({"ca": "/nothing"}, "--ca /nothing: No such file"),
        ({"cert": "/nothing"}, "--cert /nothing: No such file"),
    ],
)
def test_wrong_options_of_tls_are_usage_errors(options, text):
    with pytest.raises(Usage, match=text):
        Connection(**options).context()


async def test_one_server_listens_with_and_without_tls(certificates):
    urls = "tcp://127.0.0.1:0", "tls://127.0.0.1:0"
    async with trio_rpc.open_server(
        {"works": Works()}, *urls, ssl_context=certificates[1]
    ) as server:
        await add(Target(url=server.urls[0]))
        await add(Target(url=server.urls[1], connection=Connection(insecure=True)))


async def test_a_context_without_an_encrypted_url_is_refused(certificates):
    with pytest.raises(ValueError, match="does not accept an ssl_context"):
        async with trio_rpc.open_server({}, "tcp://127.0.0.1:0", ssl_context=certificates[1]):
            raise AssertionError("unreachable")


# ── credentials ──────────────────────────────────────────────────────────────────────────────


async def test_only_credentials_of_the_file_are_accepted(tmp_path):
    path = tmp_path / "credentials"
    path.write_text('{"user": "a", "key": "1"}\n\n"token"\n1\n', "utf-8")
    async with works(authenticate=check_against(path)) as (_, target):
        for right in ('{"key": "1", "user": "a"}', '"token"', "1"):
            await add(Target(url=target.url, connection=Connection(credentials=right)))
        for wrong in ('"Token"', '{"user": "a"}', "true", "null", "1.5", '""'):
            with pytest.raises(Unreachable, match=r"wrong credentials|no credentials"):
                await add(Target(url=target.url, connection=Connection(credentials=wrong)))
        with pytest.raises(Unreachable, match="no credentials"):
            await add(target)
        with pytest.raises(trio_rpc.Refused, match="wrong credentials"):
            async with trio_rpc.connect(target.url, credentials=b"token"):
                raise AssertionError("unreachable")


@pytest.mark.parametrize("text", ["", "\n", "secret\n", "null\n"])
def test_a_file_without_credentials_is_a_usage_error_that_shows_none(tmp_path, text):
    path = tmp_path / "credentials"
    path.write_text(text, "utf-8")
    with pytest.raises(Usage) as refused:
        check_against(path)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["folder/that/is/not/there.svg", "plot.docx", "plot"])
def test_a_plot_that_cannot_be_drawn_is_refused_before_anything_is_measured(name, monkeypatch):
    pytest.importorskip("matplotlib", reason="the group plots is not installed")
    monkeypatch.setattr(Bench, "run", lambda *_: pytest.fail("it measures"))
    assert main(["bench", "tcp://127.0.0.1:1", "m", "--plot", name]) == Exit.USAGE


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(Bench, "run", lambda *_: pytest.fail("it measures"))
    assert main(["bench", "tcp://127.0.0.1:1", "m", "--plot", "plot.svg"]) == Exit.USAGE
    assert "pip install matplotlib" in capsys.readouterr().err


@pytest.fixture
def drawn(monkeypatch):
    """The files that are drawn, without matplotlib."""
    paths = []
    monkeypatch.setattr(benching, "check_plot", lambda _: None)
    monkeypatch.setattr(Bench, "plot", lambda _, path: paths.append(path.name))
    return paths


def after(monkeypatch, latencies, errors, *, interrupted):
    """Replace the calls of a run by their outcomes."""

    async def run(self, _output):
        for each in latencies:
            self.latencies.add(each)
        self.errors.update(errors)
        if interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "run", run)


@pytest.mark.parametrize("errors", [[], ["KeyError"]])
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_calls_that_succeeded_are_drawn(drawn, monkeypatch, capsys, errors, interrupted):
    after(monkeypatch, [0.1, 0.2], errors, interrupted=interrupted)
    code = main(["bench", "tcp://127.0.0.1:1", "m", "--plot", "plot.svg", "--json"])
    assert code == (Exit.INTERRUPTED if interrupted else Exit.FAILED if errors else 0)
    assert drawn == ["plot.svg"]
    assert json.loads(capsys.readouterr().out)["errors"] == dict.fromkeys(errors, 1)


def test_nothing_is_drawn_if_no_call_succeeded(drawn, monkeypatch):
    after(monkeypatch, [], ["KeyError"], interrupted=False)
    assert main(["bench", "tcp://127.0.0.1:1", "m", "--plot", "plot.svg"]) == Exit.FAILED
    assert drawn == []
