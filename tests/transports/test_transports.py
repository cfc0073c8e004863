"""The choice of the tests that run over each transport, and checks of the transports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from helpers.tls import make_contexts
from helpers.transports import KINDS, Transport

from trio_rpc import DEFAULT_LIMITS

SLOW = pytest.mark.slow

SESSION = Path(__file__).parents[1] / "session"

ALONE = {
    "test_log_limits.py": "about logs",
    "test_costs.py": "counts packets, bytes, waits and steps",
    "test_garbage.py": "counts objects; Trio's TLS leaves a reference cycle",
    "test_interrupt.py": "runs Trio itself",
    "test_interrupted_anywhere.py": "runs Trio itself",
    "test_options_checked.py": "about refusals before there is a channel",
    "test_pacing.py": "checks the messages of a hand-written peer",
    "test_trace_details.py": "about texts, times and the order of steps at one end",
    "test_one_pass_calls.py": "about values, which are the same over each transport",
    "test_too_costly.py": "about values, which are the same over each transport",
}
"""Modules whose tests do not run over each transport, with the reason."""

IN_MEMORY = {
    # The race has both outcomes only if a packet takes as many ticks as in memory.
    "test_cancel_and_reply_crossing_between_two_sessions_leaves_no_calls",
    # These raise before the channel is used.
    "test_an_ambiguous_argument_is_refused_at_the_caller_if_no_annotation_decides",
    "test_use_in_another_thread_raises_and_the_session_goes_on",
    "test_use_after_the_end_of_its_run_raises",
    "test_a_session_of_a_run_that_is_over_says_so_in_a_later_run_of_the_same_thread",
}
"""Tests whose sessions are joined in memory only."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=SLOW if kind == "nats-server" else ()) for kind in KINDS]
)
async def test_each_transport_uses_its_own_kind_of_channel(kind, nursery, tmp_path):
    """Sessions work between processes and over a network, by TCP, TLS, WebSockets and sockets."""
    transport = Transport(kind, nursery, tmp_path, make_contexts())
    async with transport.join(DEFAULT_LIMITS, DEFAULT_LIMITS) as ends:
        kinds = [type(end).__name__ for end in ends]
    expected = {
        "memory": "MemoryChannel",
        "json": "MemoryChannel",
        "ws": "WebSocketChannel",
        "wss": "WebSocketChannel",
        "forwarding": "ForwardingChannel",
        "resumable": "ResumableChannel",
        "nats": "NatsChannel",
        "nats-server": "NatsChannel",
    }
    if kind in ("process", "thread"):
        assert kinds == [f"{kind.capitalize()}Channel", "StreamChannel"]
        return
    assert kinds == [expected.get(kind, "StreamChannel")] * 2


def _opens_in_memory(node):
    """Tell whether a node calls ``open_session_pair`` without channels."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != "open_session_pair":
        return False
    return "channels" not in {each.arg for each in node.keywords}


def opens_in_memory(source):
    """Return the functions of a module that open sessions in memory only."""
    functions = ast.parse(source).body
    return {
        getattr(function, "name", "")
        for function in functions
        if any(_opens_in_memory(node) for node in ast.walk(function))
    }


def test_every_test_of_sessions_that_is_not_listed_runs_over_each_transport():
    modules = {path.name: path.read_text("utf-8") for path in SESSION.glob("test_*.py")}
    assert set(ALONE) <= set(modules)
    found = set()
    for name, source in modules.items():
        if name not in ALONE:
            found |= opens_in_memory(source)
    assert found == IN_MEMORY


def test_a_test_in_memory_only_is_found():
    source = "async def test_it():\n    async with open_session_pair(None, {}):\n        pass\n"
    assert opens_in_memory(source) == {"test_it"}
    assert opens_in_memory(source.replace("{}", "{}, channels=pair")) == set()
    assert opens_in_memory(source.replace("open_session_pair", "session_pair")) == set()
