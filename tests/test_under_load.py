"""The program that loads and abuses a server runs, and names the missed figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks.under_load import __main__ as program  # noqa: E402 - needs the path above
from benchmarks.under_load.parts import PARTS, Figure, percentile  # noqa: E402 - likewise


@pytest.mark.parametrize("part", PARTS)
def test_a_server_under_load_is_measured_and_nothing_is_lost(part):
    done = subprocess.run(  # noqa: S603 - it is this program
        [sys.executable, "-m", "benchmarks.under_load", "--quick", "--json", "--only", part],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(done.stdout)["parts"]
    assert set(measured) == {part}
    bounded = [each for each in measured[part]["figures"] if each["most"] is not None]
    assert bounded
    assert all(each["holds"] for each in bounded if not each["of_speed"])


def test_a_missed_figure_is_told_and_is_the_exit_status(monkeypatch, capsys):
    async def slow(_sizes):
        return [Figure("lost", 1, 0), Figure("slow, ms", 30, 20, of_speed=True), Figure("seen", 9)]

    monkeypatch.setitem(PARTS, "idle", slow)
    assert program.main(["--only", "idle"]) == 1
    assert capsys.readouterr().out.count("MISSED") == 2
    assert program.main(["--only", "idle", "--quick"]) == 1
    assert capsys.readouterr().out.count("MISSED") == 1


def test_a_percentile_is_a_measured_value():
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(range(1000), 99) == 990
    assert percentile([5], 99) == 5
