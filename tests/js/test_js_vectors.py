"""docs/vectors.json holds for session.js."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from helpers import node

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "docs" / "vectors.json"

pytestmark = [node.needs_node, pytest.mark.slow]


async def test_all_vectors_hold_in_javascript():
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    with trio.fail_after(120):
        done = await trio.run_process(
            [str(node.NODE), HERE / "vectors.mjs", VECTORS], capture_stdout=True
        )
    result = json.loads(done.stdout)
    assert result["problems"] == []
    assert result["tried"] > len(vectors["exchanges"]) + len(vectors["values"])


async def test_changed_packets_are_accepted_or_break_the_protocol_and_nothing_else():
    with trio.fail_after(120):
        done = await trio.run_process(
            [str(node.NODE), HERE / "fuzz.mjs", VECTORS], capture_stdout=True
        )
    result = json.loads(done.stdout)
    assert (result["problems"], result["polluted"]) == ([], None)
    assert result["tried"] > 50_000
    assert 0 < result["accepted"] < result["tried"] / 2
