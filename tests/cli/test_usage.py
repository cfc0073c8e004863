"""Bad input is reported in one clear line and an exit code, never a traceback."""

from __future__ import annotations

import json
import logging
import socket
import sys
from types import SimpleNamespace

import pytest
from helpers.cli_tools import run_cli

from trio_rpc.cli import main
from trio_rpc.cli.exits import Exit

URL = "tcp://127.0.0.1:1"

BAD = {
    "no such command": ["frob"],
    "option misspelt": ["ping", URL, "--cuont", "3"],
    "argument missing": ["call"],
    "argument too many": ["ping", URL, "more"],
    "not a number": ["ping", URL, "--count", "many"],
    "pings that are not whole": ["ping", URL, "--count", "1.5"],
    "items that are not whole": ["stream", URL, "m", "--count", "1.5"],
    "calls that are not whole": ["bench", URL, "m", "-n", "2.5"],
    "a certificate without TLS": ["call", URL, "m", "--insecure"],
    "a certificate without TLS, to serve": ["serve", "json:x", "--listen", URL, "--cert", "c"],
    "a certificate without TLS, for several": ["call", URL, "m", "--also", URL, "--ca", "c"],
    "a certificate without TLS, for a name": ["call", "dns+tcp://127.0.0.1:1", "m", "--insecure"],
    "a certificate without TLS, for a gateway": ["ping", "http://127.0.0.1:1", "--cert", "c"],
    "a key without TLS": ["ping", URL, "--key", "k"],
    "a header for several servers": ["call", URL, "m", "--also", URL, "--header", "a: b"],
    "a ping of a name": ["ping", "dns+tcp://127.0.0.1:1"],
    "a ping of a name as well": ["ping", URL, "--also", "dns+tls://127.0.0.1:1"],
    "count of zero": ["ping", URL, "--count", "0"],
    "negative interval": ["ping", URL, "--interval=-1"],
    "interval that is not finite": ["ping", URL, "--interval", "nan"],
    "timeout of zero": ["call", URL, "m", "[]", "--timeout", "0"],
    "timeout that is not a number": ["call", URL, "m", "[]", "--timeout", "nan"],
    "unknown scheme": ["ping", "ftp://127.0.0.1:1"],
    "another URL beside NATS": ["instances", "nats://127.0.0.1/market", URL],
    "no port": ["ping", "tcp://127.0.0.1"],
    "control characters in the URL": ["ping", "tcp://\x1b[2J:1"],
    "not JSON": ["call", URL, "m", "{]"],
    "not JSON, hostile": ["call", URL, "m", "[\x1b[2J[red]\n"],
    "JSON scalar": ["call", URL, "m", "5"],
    "JSON too deep": ["call", URL, "m", "[" * 100_000],
    "JSON number of too many digits": ["call", URL, "m", "[" + "9" * 5000 + "]"],
    "JSON key that appears twice": ["call", URL, "m", '{"a": 1, "a": 2}'],
    "JSON key that appears twice, further in": ["call", URL, "m", '[{"x": {"a": 1, "a": 1}}]'],
    "JSON has no NaN": ["call", URL, "m", "[NaN]"],
    "JSON has no infinity": ["call", URL, "m", "[-Infinity]"],
    "JSON number that is too large": ["call", URL, "m", "[1e400]"],
    "JSON number that is too small": ["call", URL, "m", "[1e-400]"],
    "credentials with a key twice": ["ping", URL, "--credentials", '{"user": 1, "user": 2}'],
    "credentials that are not JSON": ["ping", URL, "--credentials", "secret"],
    "certificates that are not there": ["ping", "tls://127.0.0.1:1", "--ca", "/nowhere/ca.pem"],
    "nothing to listen at": ["serve", "json:dumps"],
    "nowhere to listen": ["serve", "json:dumps", "--listen", "nowhere"],
    "no module:object": ["serve", "json", "--listen", "tcp://127.0.0.1:0"],
    "no such module": ["serve", "no_such_module_:x", "--listen", "tcp://127.0.0.1:0"],
    "no such object": ["serve", "json:nothing.at.all", "--listen", "tcp://127.0.0.1:0"],
    "not a service": ["serve", "sys:path", "--listen", "tcp://127.0.0.1:0"],
    "class without methods": ["serve", "builtins:int", "--listen", "tcp://127.0.0.1:0"],
    "tls without certificate": ["serve", "json:dumps", "--listen", "tls://127.0.0.1:0"],
    "wss without certificate": ["serve", "json:dumps", "--listen", "wss://127.0.0.1:0"],
    "key without certificate": ["serve", "json:x", "--listen", URL, "--key", "k"],
    "negative grace": ["serve", "json:dumps", "--listen", URL, "--grace=-1"],
    "unknown detail": ["serve", "json:dumps", "--listen", URL, "--error-detail", "all"],
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD.keys())
def test_bad_usage_is_reported_in_one_line_with_exit_code_2(arguments, capsys):
    assert main(arguments) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("trio-rpc: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    assert len(err) < 1000


@pytest.mark.parametrize(
    "words", [["ping", "dns+tcp://localhost:1"], ["ping", URL, "--also", "dns+tls://a:1"]]
)
def test_a_name_that_is_pinged_is_told_what_to_do(words, capsys):
    assert main(words) == Exit.USAGE
    assert "give the URL of one, and --also for others" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["call", URL, "m", "--also", URL, "--ca", "/nowhere/c"],
        ["call", "dns+tcp://127.0.0.1:1", "m", "--insecure"],
        ["describe", "http://127.0.0.1:1", "--insecure"],
        ["instances", URL, "--server-name", "a"],
    ],
)
def test_options_for_tls_are_not_ignored_without_it(words, capsys):
    assert main(words) == Exit.USAGE
    assert "is not encrypted" in capsys.readouterr().err


def test_bad_usage_is_reported_as_json_for_scripts(capsys):
    assert main(["call", URL, "m", "{]", "--json"]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"]["exit"] == Exit.USAGE


@pytest.mark.parametrize("option", ["--json", "--json=true", "--json=yes", "--json=1"])
def test_a_failure_is_reported_as_json_with_any_spelling_of_the_option(option, capsys):
    assert main(["call", URL, "m", "{]", option]) == Exit.USAGE
    assert json.loads(capsys.readouterr().err)["error"]["exit"] == 2


@pytest.mark.parametrize("option", [[], ["--json=false"]])
def test_a_failure_is_reported_in_a_readable_line_by_default(option, capsys):
    assert main(["call", URL, "m", "{]", *option]) == Exit.USAGE
    assert capsys.readouterr().err.startswith("trio-rpc: ")


def test_ctrl_c_while_modules_are_imported_ends_the_program_silently(capsys, monkeypatch):
    def interrupt(name: str, *_: object) -> None:
        if name == "trio_rpc.cli.app":
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "trio_rpc.cli.app")
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=interrupt), *sys.meta_path])
    assert main(["ping", URL]) == Exit.INTERRUPTED
    assert capsys.readouterr() == ("", "")


def test_a_refused_connection_exits_with_code_3(capsys):
    with socket.socket() as unheard:  # bound, but not listening
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        assert main(["ping", f"tcp://127.0.0.1:{port}"]) == Exit.UNREACHABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"trio-rpc: cannot connect to tcp://127.0.0.1:{port}: ")
    assert err.count("\n") == 1


def test_several_instances_may_be_typed(capsys):
    assert main(["instances", "tcp://127.0.0.1:1", "tcp://127.0.0.2:1"]) == Exit.UNREACHABLE
    text = capsys.readouterr().err
    assert "cannot connect to tcp://127.0.0.1:1" in text
    assert "cannot connect to tcp://127.0.0.2:1" in text


def test_an_address_in_use_exits_with_code_3(capsys, tmp_path, monkeypatch):
    (tmp_path / "clock_service.py").write_text(
        "import trio_rpc\n"
        "class Clock:\n"
        "    @trio_rpc.method\n"
        "    def now(self) -> float: return 0.0\n"
        "services = Clock()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        code = main(["serve", "clock_service:services", "--listen", url])
    assert code == Exit.UNREACHABLE
    assert capsys.readouterr().err.startswith(f"trio-rpc: cannot listen at {url}: ")


def test_an_error_in_a_service_module_is_reported_with_its_line(capsys, tmp_path, monkeypatch):
    (tmp_path / "raising_service.py").write_text("x = 1\nraise ValueError('not today\\x1b[2J')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["serve", "raising_service:x", "--listen", URL]) == Exit.USAGE
    err = capsys.readouterr().err
    assert "ValueError: not today\\x1b[2J (raising_service.py, line 2)" in err


@pytest.mark.parametrize("missing", ["cyclopts", "rich"])
def test_a_missing_extra_is_reported_in_one_line(missing, capsys, monkeypatch):
    for name in list(sys.modules):
        if name.startswith("trio_rpc.cli.") or name.partition(".")[0] == missing:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["ping", URL]) == Exit.USAGE
    expected = (
        f'trio-rpc: the command line needs {missing}, from the extra "cli": '
        "in a clone of trio_rpc, run pip install '.[cli]'\n"
    )
    assert capsys.readouterr() == ("", expected)


def test_an_http_url_without_the_extra_of_the_gateway_says_what_to_install(capsys, monkeypatch):
    for name in list(sys.modules):
        if name.startswith("trio_rpc.gateway") or name.partition(".")[0] == "hypercorn":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hypercorn", None)
    command = ["serve", "examples.market:services", "--listen", "http://127.0.0.1:0"]
    assert main(command) == Exit.USAGE
    expected = (
        'http:// needs hypercorn, from the extra "gateway": '
        "in a clone of trio_rpc, run pip install '.[gateway]'\n"
    )
    assert capsys.readouterr().err == f"trio-rpc: {expected}"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["serve", "--help"]])
def test_help_and_version_exit_with_code_0(arguments, capsys):
    assert main(arguments) == Exit.OK
    out, err = capsys.readouterr()
    assert out
    assert err == ""


def test_serving_leaves_the_loggers_as_they_were(capsys):
    log = logging.getLogger("trio_rpc")
    before = log.level, list(log.handlers)
    assert main(["serve", "no_such_module:x", "--listen", URL]) == Exit.USAGE
    assert (log.level, log.handlers) == before


async def test_the_command_line_runs_as_a_program():
    done = await run_cli("--version")
    assert (done.returncode, done.stderr) == (0, b"")
    done = await run_cli("frob")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"trio-rpc: ")
