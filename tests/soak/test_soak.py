"""The soak itself notices the faults that it looks for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.helpers.nats_server import find_program
from tests.soak import lanes
from tests.soak.lanes import Place, open_broker
from tests.soak.ledger import compare
from tests.soak.levels import Levels, memory
from tests.soak.traffic import Tally


def lines(path, *texts):
    path.write_text("".join(f"{text} somewhere\n" for text in texts))
    return path


def faults(tmp_path, *, asked, ran):
    return compare(lines(tmp_path / "asked", *asked), lines(tmp_path / "ran", *ran)).faults


def test_calls_whose_handlers_ran_once_and_ended_in_time_are_right(tmp_path):
    asked = ["1 returned 30", "2 not_started 31", "3 unknown 32", "4 stopped 33", "5 raised 34"]
    ran = [f"{label} {what}" for label in (1, 3, 5) for what in ("begin 10", "end 20")]
    assert faults(tmp_path, asked=asked, ran=ran) == []


@pytest.mark.parametrize(
    ("asked", "ran", "fault"),
    [
        (["1 returned 30"], ["1 begin 1", "1 end 2"] * 2, "call 1 ran 2 times"),
        (["1 unknown 30"], ["1 begin 1", "1 end 2"] * 2, "call 1 ran 2 times"),
        (["1 returned 3"], ["1 begin 1", "1 end 4"], "before its handler had ended"),
        (["1 stopped 3"], ["1 begin 1"], "before its handler had ended"),
        (["1 returned 3"], [], "its handler did not run"),
        (["1 not_started 3"], ["1 begin 1", "1 end 2"], "was told that it did not"),
        (["1 unknown 3", "1 returned 4"], ["1 begin 1", "1 end 2"], "has 2 outcomes"),
        ([], ["1 begin 1", "1 end 2"], "call 1 has no outcome"),
        (["1 went_on 3", "1 stopped 9"], ["1 begin 1", "1 end 4"], "before its handler had ended"),
    ],
)
def test_each_fault_of_the_ledgers_is_told(tmp_path, asked, ran, fault):
    (told,) = faults(tmp_path, asked=asked, ran=ran)
    assert fault in told


def levels_of(function, seconds=600):
    levels = Levels()
    for at in range(seconds):
        levels.add(at, function(at), 0.0)
    return levels


def test_memory_that_grows_all_the_time_is_told():
    assert not levels_of(lambda at: 100 + at / 30).is_level(60)


def test_a_short_run_only_tells_of_much_growth():
    assert levels_of(lambda at: 100 + at / 6, 120).is_level(60)
    assert not levels_of(lambda at: 100 + at, 120).is_level(60)


def test_memory_that_grows_first_or_comes_and_goes_is_level():
    assert levels_of(lambda at: 100 + min(at, 60)).is_level(60)
    assert levels_of(lambda at: 100 + at % 5 * 10).is_level(60)


def test_a_few_refused_calls_are_right_and_many_are_a_fault():
    tally = Tally(ledger=None, calls=1000, refused=20)
    assert tally.refusal_faults() == []
    tally.refused += 1
    assert tally.refusal_faults() == ["21 of 1000 calls were refused as overloaded"]


def test_growth_of_the_free_part_of_the_heap_is_shown_but_is_not_a_leak():
    levels = Levels()
    for at in range(600):
        levels.add(at, 100 + at / 30, at / 30)
    assert levels.is_level(60)
    assert levels.resident_slope(60) == pytest.approx(2, abs=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_memory_that_is_freed_inside_the_heap_is_not_in_use():
    blocks = [bytes(50_000) for _ in range(2000)]
    resident, free = memory()
    assert resident > 100
    kept = blocks[::2]
    blocks.clear()
    resident_after, free_after = memory()
    assert resident_after - free_after < resident - free - 30
    assert len(kept) == 1000


async def test_without_nats_server_the_soak_says_so_and_leaves_nats_out(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(lanes, "find_program", lambda: None)
    place = Place(tmp_path)
    async with open_broker(place):
        assert [url.partition(":")[0] for url in place.urls("any")] == [*lanes.SCHEMES]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nats-server is missing")


def test_each_server_has_a_service_of_its_own_at_the_broker(tmp_path):
    place = Place(tmp_path, broker="nats://127.0.0.1:4222")
    assert place.urls("any")[-1] == "nats://127.0.0.1:4222/any"


def test_bytes_that_the_broker_does_not_understand_are_told(tmp_path):
    place = Place(tmp_path)
    assert place.broker_errors() == []
    (tmp_path / "nats").mkdir()
    error = "[ERR] 127.0.0.1:1 - cid:1 - Client parser ERROR, state=0, i=0: proto='x'..."
    (tmp_path / "nats" / "log").write_text(f"[INF] Server is ready\n{error}\n")
    assert place.broker_errors() == [error]


@pytest.mark.slow
def test_a_few_seconds_of_it_run_without_a_fault():
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--minutes", "0.1", "--seed", "1", "--json"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["faults"] == []
    assert result["outcomes"]["returned"] > 0
    over_nats = [name for name in result["sessions"] if name.startswith("nats")]
    if find_program() is None:
        assert over_nats == []
    else:
        assert over_nats == ["nats", "nats, cut", "nats, resumed", "nats, restarted"]
        assert result["sessions"]["nats"] > 0
