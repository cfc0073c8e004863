"""The transports that the other modules here run over are what they say (B43, B57-B60)."""

from __future__ import annotations

from pathlib import Path

from trio_rpc import DEFAULT_LIMITS

HERE = Path(__file__).parent


async def test_the_transport_is_what_it_says(transport):
    async with transport.join(DEFAULT_LIMITS, DEFAULT_LIMITS) as ends:
        kinds = [type(end).__name__ for end in ends]
    expected = {
        "memory": "MemoryChannel",
        "ws": "WebSocketChannel",
        "wss": "WebSocketChannel",
        "forwarding": "ForwardingChannel",
        "resumable": "ResumableChannel",
    }
    if transport.kind == "process":
        assert kinds == ["ProcessChannel", "StreamChannel"]
        return
    assert kinds == [expected.get(transport.kind, "StreamChannel")] * 2


def test_every_module_of_the_suite_of_sessions_is_here():
    of_sessions = {
        path.stem
        for path in (HERE.parent / "session").glob("test_*.py")
        if "open_session_pair(" in path.read_text("utf-8")
    }
    here = {path.stem.removesuffix("_anywhere") for path in HERE.glob("test_*_anywhere.py")}
    # One is about logs, two count (Trio's TLS leaves a cycle of its own), one runs loops of its own, one is about what a peer made by hand sees.
    alone = {"test_complaints", "test_costs", "test_garbage", "test_interrupt", "test_pacing"}
    assert of_sessions - here == alone
    assert here <= of_sessions
