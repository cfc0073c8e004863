"""The URL and options that a command takes from the environment and from pyproject.toml."""

from __future__ import annotations

import pytest

from trio_rpc.cli.app import commands_taking_url, switches
from trio_rpc.cli.defaults import words_of
from trio_rpc.cli.exits import Usage

TAKING_URL = {"call", "ping"}


def test_each_command_with_a_url_may_leave_it_out():
    assert commands_taking_url() == {
        "bench",
        "call",
        "describe",
        "health",
        "instances",
        "notify",
        "ping",
        "stream",
        "top",
    }


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    for name in ("URL", "CA", "CERT", "KEY", "SERVER_NAME"):
        monkeypatch.delenv(f"TRIO_RPC_{name}", raising=False)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n", "utf-8")
    return tmp_path


def write(folder, text):
    (folder / "pyproject.toml").write_text(text, "utf-8")


def words(*arguments):
    return words_of(arguments, taking_url=TAKING_URL, switches={"--json"})


def test_a_url_that_is_given_wins(folder, monkeypatch):
    monkeypatch.setenv("TRIO_RPC_URL", "tcp://env:1")
    write(folder, "[tool.trio-rpc]\nurl = 'tcp://table:1'\nca = 'ca.pem'\n")
    for url in ("tcp://given:1", "exec:python plugin.py"):
        assert words("call", url, "m") == ["call", url, "m"]


def test_the_environment_comes_before_the_table(folder, monkeypatch):
    write(folder, "[tool.trio-rpc]\nurl = 'tcp://table:1'\n")
    assert words("call", "m", "[1]") == ["call", "tcp://table:1", "m", "[1]"]
    monkeypatch.setenv("TRIO_RPC_URL", "tcp://env:1")
    assert words("ping") == ["ping", "tcp://env:1"]


def test_options_of_the_table_are_added_unless_given(folder):
    write(folder, "[tool.trio-rpc]\nurl = 'tls://a:1'\nca = 'ca.pem'\nserver-name = 'b'\n")
    added = ["--ca", str(folder / "ca.pem"), "--server-name", "b"]
    assert words("ping") == ["ping", "tls://a:1", *added]
    assert words("ping", "--ca=x") == ["ping", "tls://a:1", *added[2:], "--ca=x"]


def test_options_of_the_environment_come_before_those_of_the_table(folder, monkeypatch):
    write(folder, "[tool.trio-rpc]\nurl = 'tls://a:1'\nca = 'ca.pem'\nserver-name = 'b'\n")
    monkeypatch.setenv("TRIO_RPC_CA", "env.pem")
    assert words("ping") == ["ping", "tls://a:1", "--ca", "env.pem", "--server-name", "b"]
    assert words("ping", "--ca", "x") == ["ping", "tls://a:1", "--server-name", "b", "--ca", "x"]


def test_options_of_the_environment_are_for_a_url_that_is_given_too(folder, monkeypatch):
    write(folder, "[tool.trio-rpc]\nca = 'ca.pem'\n")
    monkeypatch.setenv("TRIO_RPC_CERT", "me.pem")
    monkeypatch.setenv("TRIO_RPC_KEY", "me.key")
    monkeypatch.setenv("TRIO_RPC_SERVER_NAME", "")  # as if it were not set
    added = ["--cert", "me.pem", "--key", "me.key"]
    assert words("call", "tls://given:1", "m") == ["call", *added, "tls://given:1", "m"]
    assert words("call", "--", "tls://given:1", "m") == ["call", *added, "--", "tls://given:1", "m"]


@pytest.mark.parametrize("url", ["tcp://b:1", "unix:///b", "ws://b/rpc", "exec:python b.py"])
def test_options_for_tls_are_not_added_to_a_url_without_it(folder, monkeypatch, url):
    write(folder, "[tool.trio-rpc]\nurl = 'tls://a:1'\nca = 'ca.pem'\n")
    monkeypatch.setenv("TRIO_RPC_SERVER_NAME", "c")
    assert words("ping", url) == ["ping", url]
    monkeypatch.setenv("TRIO_RPC_URL", url)
    assert words("ping") == ["ping", url]


@pytest.mark.parametrize("others", [["--also", "tls://b:1"], ["--also=wss://b"], ["https://b"]])
def test_options_for_tls_are_added_if_one_of_several_urls_has_it(monkeypatch, others):
    monkeypatch.setenv("TRIO_RPC_CA", "env.pem")
    given = ["tcp://a:1", *others]
    assert words("ping", *given) == ["ping", "--ca", "env.pem", *given]
    given = ["tcp://a:1", "m", '["tls://b:1"]']  # an argument of the call
    assert words("call", *given) == ["call", *given]


def test_options_that_conflict_with_given_options_are_not_added(folder):
    table = "url = 'tls://a:1'\nca = 'ca.pem'\nserver-name = 'b'\ncert = 'c'\nkey = 'k'\n"
    write(folder, f"[tool.trio-rpc]\n{table}")
    own = ["--cert", str(folder / "c"), "--key", str(folder / "k")]
    others = ["--ca", str(folder / "ca.pem"), "--server-name", "b"]
    assert words("ping", "--insecure") == ["ping", "tls://a:1", *own, "--insecure"]
    assert words("ping", "--cert", "x") == ["ping", "tls://a:1", *others, "--cert", "x"]


def test_other_commands_and_help_take_nothing(folder):
    write(folder, "[tool.trio-rpc]\nurl = 'tcp://table:1'\n")
    assert words("serve", "a:b") == ["serve", "a:b"]
    assert words("call", "--help") == ["call", "--help"]
    assert words() == []


@pytest.mark.parametrize(
    ("given", "text"),
    [((), "ping requires a URL: give one"), (("m",), "'m' is not a URL: give one")],
)
def test_without_a_url_anywhere_one_line_says_where_to_give_it(given, text):
    with pytest.raises(Usage, match=text):
        words("ping", *given)


@pytest.mark.parametrize("url", ["tcp://given:1", "unix:app.sock"])
def test_a_url_that_is_given_after_options_wins(url, monkeypatch):
    monkeypatch.setenv("TRIO_RPC_URL", "tcp://env:1")
    for options in (["--json"], ["--timeout", "5"], ["--timeout=5", "-n", "3"], ["--"]):
        assert words("call", *options, url, "m") == ["call", *options, url, "m"]


def test_the_url_of_another_instance_is_not_the_first(monkeypatch):
    monkeypatch.setenv("TRIO_RPC_URL", "tcp://env:1")
    given = ["--also", "tcp://b:1", "m"]
    assert words("call", *given) == ["call", "tcp://env:1", *given]
    assert words("ping", "--also", "tcp://b:1") == ["ping", "tcp://env:1", *given[:2]]


def test_switches_are_the_options_without_a_value():
    assert {"--json", "--insecure", "--trace", "--watch", "--once"} <= switches()
    assert not {"--count", "-n", "--also", "--cert", "--metadata"} & switches()


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("[tool]\ntrio-rpc = 1", "must be a table"),
        ("[tool.trio-rpc]\nurls = 'x'", "has the key urls: known are url"),
        ("[tool.trio-rpc]\nurl = 1", "url must be text"),
        ("[tool.trio-rpc]\ncredentials = 'x'", "has the key credentials"),
        ("[tool", "cannot be read"),
        ("tool = 1", "tool must be a table"),
    ],
)
def test_a_bad_table_is_a_usage_error(folder, table, text):
    write(folder, table)
    with pytest.raises(Usage, match=text):
        words("ping")


def test_a_lone_hyphen_stays_an_argument():
    assert words("call", "tcp://a:1", "m", "-") == ["call", "tcp://a:1", "m", "@-"]
