"""The benchmarks run and report. No test here depends on speed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks import account, adapters, compare, growth, idle, plots, report, runner  # noqa: E402 - needs the path above
from benchmarks.__main__ import main  # noqa: E402 - likewise
from benchmarks.adapter import adapter, peer  # noqa: E402 - likewise
from benchmarks.figures import FIGURES  # noqa: E402 - likewise
from benchmarks.loops import ASYNCIO, BLOCKING, TRIO, run_blocking  # noqa: E402 - likewise
from benchmarks.meter import Meter  # noqa: E402 - likewise
from benchmarks.parts import GROUPS, PARTS, expand  # noqa: E402 - likewise
from benchmarks.runner import Loads, Outcome  # noqa: E402 - likewise
from benchmarks.steps import STEPS, SYSTEM, step_of  # noqa: E402 - likewise

ABOUT = {
    "processor": "",
    "cores": 2,
    "system": "",
    "python": "",
    "packages": {},
    "pinned": {"server": 0, "client": 1},
}


def run_benchmarks(*arguments):
    return run_module("benchmarks", "--quick", *arguments)


def run_module(name, *arguments):
    return subprocess.run(  # noqa: S603 - it is this program
        [sys.executable, "-m", name, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def outcome_of(values, *, part="one", lacking=None):
    """Make an Outcome from the value of each adapter in each round."""
    metrics = PARTS[part].metrics
    rounds = [
        {name: dict.fromkeys((m.key for m in metrics), value) for name, value in one.items()}
        for one in values
    ]
    titles = dict.fromkeys((*values[0], *(lacking or ())), "a title")
    return Outcome(PARTS[part], PARTS[part].quick, titles, rounds=rounds, lacking=lacking or {})


def test_a_quick_run_measures_every_kind_of_loop_and_writes_a_file(tmp_path):
    file = tmp_path / "figures.json"
    names = ["sockets", "asyncio", "trio_rpc", "trio_rpc-inline"]
    chosen = [argument for name in names for argument in ("--adapter", name)]
    done = run_benchmarks("--only", "one", "--only", "flight", "--json", str(file), *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    for key in ("one", "flight"):
        assert found["parts"][key]["failures"] == {}
        assert {*names, PARTS[key].floor} <= {*found["parts"][key]["rounds"][0]}


def test_a_quick_run_measures_structures_sizes_and_sessions_by_clock_and_by_cpu(tmp_path):
    file = tmp_path / "figures.json"
    keys = {"dataclasses", "large-256k", "sessions-100", "ws-one"}
    chosen = [argument for key in keys for argument in ("--only", key)]
    names = ("--adapter", "trio_rpc", "--adapter", "trio_rpc-ws")
    done = run_benchmarks(*names, "--json", str(file), *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(file.read_text())["parts"]
    assert set(parts) == keys
    for key, part in parts.items():
        assert part["failures"] == {}
        for name in ("trio_rpc-ws" if key == "ws-one" else "trio_rpc", PARTS[key].floor):
            one = part["turns"][0][name][0]
            assert one["cpu"] > one["client_cpu"] > 0 or sys.platform != "linux"


def test_a_meter_counts_the_cpu_time_of_both_processes_and_not_of_pauses():
    program = (
        "import time\nwhile time.process_time() < 0.2: pass\nprint('done', flush=True)\ninput()"
    )
    with subprocess.Popen(  # noqa: S603 - it is this program
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        meter = Meter(server.pid)
        with meter.paused():
            server.stdout.readline()
            end = time.process_time() + 0.2
            while time.process_time() < end:
                pass
        used = meter.stop(10)
        server.communicate(b"\n")
    if sys.platform == "linux":
        assert used["cpu"] - used["client_cpu"] >= 0.1 / 10 * 1e6
        assert used["client_cpu"] < 0.1 / 10 * 1e6


def test_the_cpu_time_of_a_process_that_has_ended_is_missing():
    meter = Meter(os.getpid())
    meter._server = 2**22 + 1  # above the greatest number of a process
    assert meter.stop(1) == {}


def test_ratios_by_cpu_have_their_own_column_and_may_be_missing():
    outcome = outcome_of([{"echo": 1.0, "a": 2.0}])
    for one in outcome.rounds:
        one["a"]["cpu"] = 3.0
    text = report.as_text([outcome], ABOUT, {}, quick=True)
    assert "2.00 [2.00 .. 2.00]   3.00 [3.00 .. 3.00]" in text
    del outcome.rounds[0]["a"]["cpu"]
    assert "2.00 [2.00 .. 2.00]                     -" in report.as_text(
        [outcome], ABOUT, {}, quick=True
    )


def test_a_row_that_only_the_old_revision_cannot_run_is_skipped():
    outcome = outcome_of([{"a@old": 1.0, "a": 2.0}])
    outcome.part = replace(outcome.part, floor="a@old")
    outcome.failures["a@old"] = "client ended: no attribute 'new'"
    assert compare.is_skipped(outcome)
    assert "skipped: the revision cannot run it: client ended" in compare.as_text(
        [outcome], ABOUT, "old", quick=False
    )
    outcome.failures["a"] = "broken"
    assert not compare.is_skipped(outcome)


def test_a_group_stands_for_its_parts():
    assert list(expand(["one", "websockets"])) == ["one", "ws-one", "websocket"]
    assert all(key in PARTS for keys in GROUPS.values() for key in keys)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_a_revision_and_this_tree_are_compared_each_in_its_own_folder():
    done = run_benchmarks("compare", "HEAD", "--only", "one", "--adapter", "trio_rpc")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "one: trio_rpc" in done.stdout


def test_a_worker_that_imports_another_copy_of_the_library_fails(tmp_path):
    options = {
        "root": str(tmp_path),
        "core": None,
        "lifetime": 60,
        "hosts": ["127.0.0.1"],
        "files": 0,
    }
    done = subprocess.run(  # noqa: S603 - it is this program
        [
            sys.executable,
            "-m",
            "benchmarks.worker",
            "serve",
            "library",
            "trio_rpc",
            json.dumps(options),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1
    assert "is not the trio_rpc of" in done.stderr


def test_comparing_with_an_unknown_revision_fails_without_a_traceback():
    done = run_benchmarks("compare", "no-such-revision")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_each_module_is_listed_and_each_floor_and_figure_is_measured():
    files = {file.stem for file in Path(adapters.__file__).parent.glob("*.py")}
    assert {*adapters.MODULES} == files - {"__init__", "floor_wire", "protobuf_messages"}
    found, absent = adapters.available()
    by_name = {one.name: one for _, one in found}
    optional = ("peer_", "floor_uvloop", "browser")
    assert all(module.startswith(optional) or module in adapters.UNUSABLE for module in absent)
    for part in PARTS.values():
        if part.floor in by_name or "browser" not in absent:
            assert part.key in by_name[part.floor].parts
    for figure in FIGURES:
        if figure.adapter in by_name:
            assert figure.part in by_name[figure.adapter].parts


def test_a_peer_names_the_parts_that_it_lacks():
    one = peer(
        ASYNCIO, "p", "a peer", "one flight", not_cancelled=True, serve=None, open_client=None
    )
    assert one.lacks["cancel"] == "not propagated"
    assert one.lacks["stream"] == "-"
    assert "one" not in one.lacks
    assert "mixed" not in one.lacks
    assert not adapter(TRIO, "a", "a floor", "one", serve=None, open_client=None).lacks


def test_the_table_gives_the_reason_for_a_missing_figure():
    outcome = outcome_of([{"scopes": 1.0}], part="cancel", lacking={"p": "not propagated"})
    text = report.as_text([outcome], ABOUT, {"peer_p": "not installed: p"}, quick=True)
    assert "not propagated" in text
    assert "Left out: peer_p (not installed: p)" in text


@pytest.mark.parametrize(
    ("part", "now", "verdict"),
    [
        ("one", [90, 80], "better"),
        ("one", [110, 120], "worse"),
        ("one", [90, 110], "the same"),
        ("flight", [110, 120], "better"),
        ("flight", [90, 80], "worse"),
    ],
)
def test_a_comparison_is_decided_when_all_rounds_agree(part, now, verdict):
    outcome = outcome_of([{"a@old": 100, "a": value} for value in now], part=part)
    outcome.part = replace(outcome.part, floor="a@old")
    text = compare.as_text([outcome], ABOUT, "old", quick=False)
    assert verdict in text


def test_the_blocking_loop_refuses_to_wait():
    async def ready():
        return 1

    async def waits():
        await Never()

    class Never:
        def __await__(self):
            yield

    assert run_blocking(ready) == 1
    with pytest.raises(RuntimeError, match="waits for an event loop"):
        run_blocking(waits)


def test_plots_show_measured_and_lacking_parts(tmp_path):
    pytest.importorskip("matplotlib", reason="only plots need it")
    measured = outcome_of(
        [{"scopes": 1.0, "a": 2.0}], part="cancel", lacking={"p": "not propagated"}
    )
    plots.draw([measured, outcome_of([{"echo": 1.0}])], tmp_path / "plots")
    assert {file.name for file in (tmp_path / "plots").iterdir()} == {
        f"{name}.{form}"
        for name in ("cancel", "one", "overview", "peers")
        for form in ("png", "svg")
    }


def test_growth_is_drawn_from_two_points_or_more(tmp_path):
    pytest.importorskip("matplotlib", reason="only plots need it")
    two = [
        outcome_of(
            [{"nursery": 10.0, "trio_rpc": 12.0}, {"nursery": 11.0, "trio_rpc": 15.0}], part=part
        )
        for part in ("flight-8", "flight")
    ]
    assert not growth.draw_growth(two[:1], tmp_path / "growth")
    assert growth.draw_growth(two, tmp_path / "growth")
    assert {file.name for file in tmp_path.iterdir()} == {"growth.png", "growth.svg"}
    assert all(key in PARTS for panel in growth.PANELS for key in panel.points)


def test_figures_of_runs_are_reported_again_from_their_files(tmp_path, capsys):
    files = []
    for part in ("one", "flight"):
        outcome = outcome_of([{"echo": 1.0, "nursery": 1.0, "trio_rpc": 2.0}], part=part)
        files.append(tmp_path / f"{part}.json")
        files[-1].write_text(json.dumps(report.as_json([outcome], ABOUT, {}, quick=False)))
    assert main(["--markdown", str(tmp_path / "table.md"), "show", *map(str, files)]) == 0
    text = capsys.readouterr().out
    assert PARTS["one"].title in text
    assert PARTS["flight"].title in text
    assert "2.0 (2.00)" in (tmp_path / "table.md").read_text()


def test_fewer_turns_are_not_repeated():
    load = Loads(turns=3).of(PARTS["one"])
    assert (load.turns, load.spare) == (3, 0)
    assert Loads().of(PARTS["one"]) == PARTS["one"].load
    assert Loads(quick=True).of(PARTS["one"]) == PARTS["one"].quick


def test_peers_take_part_only_in_their_rounds(monkeypatch):
    played = []

    class Round:
        def __init__(self, outcome, rows, patience, stack):
            played.append([row.name for row in rows])

        def play(self, step):
            return {}

    monkeypatch.setattr(runner, "_Round", Round)
    rows = [
        runner.Row(module, peer(TRIO, name, name, "one", serve=None, open_client=None))
        for module, name in (("library", "trio_rpc"), ("peer_p", "p"))
    ]
    options = {"loads": Loads(quick=True), "patience": None, "step": None}
    runner.run([PARTS["one"]], rows, rounds=3, peer_rounds=1, **options)
    assert played == [["trio_rpc", "p"], ["trio_rpc"], ["trio_rpc"]]


def test_a_figure_against_several_peers_takes_the_best_one_that_was_measured():
    outcome = outcome_of([{"a": 3.0, "b": 2.0, "c": 4.0}, {"a": 3.0, "b": 6.0, "c": 3.5}])
    assert report.values(outcome, "a", "cpu", ("b", "c", "absent")) == [3 / 4, 3 / 3.5]
    names = {
        name for figure in FIGURES if isinstance(figure.against, tuple) for name in figure.against
    }
    assert names <= {one.name for _, one in adapters.available()[0]} or adapters.available()[1]


@pytest.mark.parametrize("loop", [TRIO, ASYNCIO, BLOCKING])
def test_a_group_ends_when_its_tasks_have(loop):
    ran = []

    async def work(number):
        ran.append(number)

    async def main():
        async with loop.group() as group:
            for number in range(3):
                group.start_soon(work, number)

    loop.run(main)
    assert sorted(ran) == [0, 1, 2]


@pytest.mark.parametrize("loop", [TRIO, ASYNCIO])
def test_a_group_is_cancelled(loop):
    ended = []

    async def work():
        try:
            await loop.sleep(10**6)
        finally:
            ended.append(True)

    async def main():
        async with loop.group() as group:
            group.start_soon(work)
            await loop.sleep(0)
            await loop.sleep(0)
            group.cancel()

    loop.run(main)
    assert ended == [True]


def test_an_error_in_a_thread_is_raised_where_the_group_ends():
    async def fails():
        raise ValueError("no")

    async def main():
        async with BLOCKING.group() as group:
            group.start_soon(fails)

    with pytest.raises(ValueError, match="no"):
        BLOCKING.run(main)


def test_the_table_of_peers_marks_the_best_library_and_ignores_floors():
    outcome = outcome_of(
        [{"scopes": 1.0, "trio_rpc": 3.0, "grpcio": 2.0}],
        part="cancel",
        lacking={"p": "not propagated"},
    )
    outcome.titles = {name: name for name in outcome.titles} | {"scopes": "floor: scopes"}
    lines = report.as_markdown([outcome]).splitlines()
    shown = {
        cells[1].strip(): (cells[2].strip(), cells[3].strip())
        for cells in (line.split("|") for line in lines[4:])
    }
    assert lines[0] == "### Cancelling and streams"
    assert shown == {
        "floor: scopes": ("1.0", "1.0 (1.00)"),
        "trio_rpc": ("3.0", "3.0 (3.00)"),
        "grpcio": ("**2.0**", "**2.0** (2.00)"),
        "p": ("not propagated", ""),
    }


def test_an_account_adds_up_to_the_time_of_an_operation(capsys):
    trio.run(partial(account.account_for, "flight-8", 0.3, 1000, count=True))
    text = capsys.readouterr().out
    head, ours, counted, floor, _ = re.split(r"\n\n?(?=trio_rpc, async|a nursery and a)", text)
    assert "times   least to least" in head
    for part, title in ((ours, "trio_rpc, async def"), (floor, "a nursery and a writer")):
        time, samples = re.match(rf"{title}: ([0-9.]+) µs, ([0-9]+) samples", part).groups()
        assert int(samples) > 0
        for table in re.split(r".*share.*", part)[1:]:
            parts = [float(row.split()[0]) for row in table.strip().splitlines()]
            assert sum(parts) == pytest.approx(float(time), rel=0.05, abs=0.05)
    steps = re.split(r".*share.*", counted)[1]
    for part in ("encoded", "decoded", "queue", "caller", "callee", "Trio: a task sleeps"):
        assert part in steps


def test_the_steps_of_several_rows_are_one_table(capsys):
    trio.run(account.table, ["one", "batches"], 0.3)
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.endswith("one call at a time, plain def | items of a stream, in batches |")
    cells = {row.split(" | ")[0]: row[2:-2].split(" | ")[1:] for row in rows}
    assert len(cells) == len(STEPS) + 2
    for number, whole in enumerate(cells["| **all**"]):
        parts = [cells[f"| {step}"][number] for step in STEPS]
        assert sum(float(part or 0) for part in parts) == pytest.approx(
            float(whole.strip("*")), rel=0.02, abs=0.5
        )


def test_every_module_of_the_library_has_a_step():
    for path in (ROOT / "trio_rpc").rglob("*.py"):
        file = str(path.relative_to(ROOT / "trio_rpc"))
        assert step_of(file, "", "") in STEPS
    assert step_of("wire/codec.py", "Codec.encode_parts", "") != step_of(
        "wire/codec.py", "decode", ""
    )
    assert step_of("trio/_core/_run.py", "CancelScope.cancel", "") == step_of(
        "trio/_core/_run.py", "Task._attempt_abort", ""
    )
    assert step_of("channels/transports.py", "read", "data = os.read(fileno, 5)") == SYSTEM


def test_an_idle_session_needs_little_memory():
    growth = trio.run(idle.grown, 20)
    assert growth.objects.total() <= 100
    assert growth.sizes.total() <= 16 * 1024
    assert growth.objects["trio_rpc.protocol.protocol.Protocol"] == 1
    assert growth.sizes["trio_rpc: session"] > 0
    assert "bytes of a session" in growth.text()


def test_the_hosts_of_a_gateway_are_measured_beside_a_plain_route():
    done = run_module("benchmarks.hosts", "--rounds", "1", "--count", "8")
    assert (done.returncode, done.stderr) == (0, "")
    for host in ("asyncio", "uvloop", "trio"):
        assert f"{host}, 1 rounds of 8 requests each" in done.stdout
    assert done.stdout.count("ratio, p50") == 2
