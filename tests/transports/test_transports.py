"""Which tests of sessions run over each transport, and that the transports are what they say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from helpers.tls import make_contexts
from helpers.transports import KINDS, Transport

from trio_rpc import DEFAULT_LIMITS

SESSION = Path(__file__).parents[1] / "session"

ALONE = {
    "test_complaints.py": "about logs",
    "test_costs.py": "counts packets, bytes, waits and steps",
    "test_garbage.py": "counts objects; Trio's TLS leaves a cycle of its own",
    "test_interrupt.py": "runs loops of its own",
    "test_pacing.py": "about what a peer made by hand sees",
}
"""Modules whose tests do not run over each transport, and why."""

IN_MEMORY = {
    # Sees both outcomes of a race for certain only where a packet takes as many ticks as in memory.
    "test_cancel_and_reply_crossing_between_two_sessions_leaves_no_calls",
    # These raise before anything reaches a channel.
    "test_an_ambiguous_argument_is_refused_at_the_caller_if_no_annotation_decides",
    "test_use_in_another_thread_raises_and_the_session_goes_on",
    "test_use_after_the_end_of_its_run_raises",
}
"""Tests that join their sessions in memory alone."""


@pytest.mark.parametrize("kind", KINDS)
async def test_the_transport_is_what_it_says(kind, nursery, tmp_path):
    transport = Transport(kind, nursery, tmp_path, make_contexts())
    async with transport.join(DEFAULT_LIMITS, DEFAULT_LIMITS) as ends:
        kinds = [type(end).__name__ for end in ends]
    expected = {
        "memory": "MemoryChannel",
        "ws": "WebSocketChannel",
        "wss": "WebSocketChannel",
        "forwarding": "ForwardingChannel",
        "resumable": "ResumableChannel",
    }
    if kind == "process":
        assert kinds == ["ProcessChannel", "StreamChannel"]
        return
    assert kinds == [expected.get(kind, "StreamChannel")] * 2


def _opens_in_memory(node):
    """Tell whether this calls ``open_session_pair`` and gives it no channels."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != "open_session_pair":
        return False
    return "channels" not in {each.arg for each in node.keywords}


def opens_in_memory(source):
    """Return the functions of a module that open sessions in memory alone."""
    functions = ast.parse(source).body
    return {
        getattr(function, "name", "")
        for function in functions
        if any(_opens_in_memory(node) for node in ast.walk(function))
    }


def test_every_other_test_of_sessions_runs_over_each_transport():
    modules = {path.name: path.read_text("utf-8") for path in SESSION.glob("test_*.py")}
    assert set(ALONE) <= set(modules)
    found = set()
    for name, source in modules.items():
        if name not in ALONE:
            found |= opens_in_memory(source)
    assert found == IN_MEMORY


def test_a_test_that_leaves_the_transports_out_is_found():
    source = "async def test_it():\n    async with open_session_pair(None, {}):\n        pass\n"
    assert opens_in_memory(source) == {"test_it"}
    assert opens_in_memory(source.replace("{}", "{}, channels=pair")) == set()
    assert opens_in_memory(source.replace("open_session_pair", "session_pair")) == set()
