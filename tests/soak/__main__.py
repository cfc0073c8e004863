"""``python -m tests.soak``: mixed traffic and faults for minutes, and a check of every outcome."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio
import trustme

import trio_rpc

from .lanes import (
    LONGEST,
    SHORTEST,
    Lane,
    Place,
    open_broker,
    open_program,
    run_children,
    run_restarted,
    run_url,
)
from .ledger import Account, Ledger, compare
from .levels import Levels, descriptors, memory
from .showing import Show, progress
from .traffic import Tally

WARM_UP = 60.0
"""Seconds before memory counts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Return 0 if nothing was wrong, 1 if something was."""
    options = _parser().parse_args(arguments)
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    print(f"--seed {seed}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        soak = Soak(Place(Path(folder)), options.minutes * 60, seed)
        with progress(soak.seconds, quiet=options.json) as report:
            trio.run(partial(soak.run, report))
        account = compare(soak.place.asked, soak.place.ran)
    return _report(soak, account, as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long (default: 2)")
    parser.add_argument("--seed", type=int, help="the seed of all choices (default: random)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


class Soak:
    """One soak: its servers, its lanes, and its findings."""

    def __init__(self, place: Place, seconds: float, seed: int) -> None:
        self.place = place
        self.seconds = seconds
        self.seed = seed
        self.levels = {"client": Levels(), "server": Levels()}
        self.lanes: list[Lane] = []
        self._make_certificates()
        self.tally = Tally(Ledger(place.asked))

    def _make_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.place.authority)
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            self.place.certificate
        )

    async def run(self, report: Show) -> None:
        """Run all lanes for the time, then check that nothing is left."""
        own = os.getpid()
        async with (
            open_broker(self.place),
            open_program(self.place, "steady") as (server, urls),
        ):
            tasks, files = await self._left(urls[0]), descriptors(server.pid)
            before = descriptors(own)
            async with trio_rpc.connect(urls[0]) as session:
                await self._run_lanes(urls, session, report)
            if (after := descriptors(own)) > before:
                self.tally.fault(f"the client has {after - before} descriptors more than before")
            await self._check_server(urls[0], server.pid, tasks, files)
        for line in self.place.broker_errors():
            self.tally.fault(f"the NATS server: {line}"[:500])

    async def _left(self, url: str) -> int:
        async with trio_rpc.connect(url) as session:
            number: int = await session.call("tasks")
            return number

    # Sessions whose client was cut off end within a moment, and resumable sessions within their
    # grace: so the server gets that time, and no more.
    async def _check_server(self, url: str, pid: int, tasks: int, files: int) -> None:
        left = "nothing"
        with trio.move_on_after(45):
            while True:
                now = await self._left(url)
                if now <= tasks and descriptors(pid) <= files:
                    return
                left = f"{now - tasks} tasks and {descriptors(pid) - files} descriptors more"
                await trio.sleep(0.5)
        self.tally.fault(f"the server has {left} than before")

    async def _run_lanes(self, urls: list[str], session: trio_rpc.Session, report: Show) -> None:
        cuts_of_plain, cuts_of_resumed = (1.0, 5.0), (SHORTEST, LONGEST)
        started = trio.current_time()
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            for url in urls:
                scheme = url.partition(":")[0]
                for name, resume, cuts in (
                    (scheme, False, None),
                    (f"{scheme}, cut", False, cuts_of_plain),
                    (f"{scheme}, resumed", True, cuts_of_resumed),
                ):
                    lane = self._lane(name)
                    nursery.start_soon(
                        partial(run_url, lane, self.place, url, resume=resume, cuts=cuts)
                    )
            restarted = [self._lane(f"{url.partition(':')[0]}, restarted") for url in urls]
            nursery.start_soon(run_restarted, restarted, self.place, self.seed, stopping)
            nursery.start_soon(run_children, self._lane("children"), self.place)
            while (passed := trio.current_time() - started) < self.seconds:
                self.levels["client"].add(passed, *memory())
                self.levels["server"].add(passed, *await session.call("memory"))
                report(passed, self.tally)
                await trio.sleep(1)
            stopping.set()
            for lane in self.lanes:
                lane.stop()

    def _lane(self, name: str) -> Lane:
        lane = Lane(name, self.tally, self.seed + len(self.lanes))
        self.lanes.append(lane)
        return lane

    def memory_faults(self) -> list[str]:
        """Return the faults of memory of each process that stayed."""
        return [
            f"the {name} grew by {each.slope(WARM_UP):.1f} MiB a minute"
            for name, each in self.levels.items()
            if not each.is_level(WARM_UP)
        ]


def _report(soak: Soak, account: Account, *, as_json: bool) -> int:
    faults = [*soak.tally.faults, *soak.tally.refusal_faults()]
    faults += [*account.faults, *soak.memory_faults()]
    result = {
        "seed": soak.seed,
        "seconds": soak.seconds,
        "calls": soak.tally.calls,
        "refused as overloaded": soak.tally.refused,
        "outcomes": dict(sorted(account.outcomes.items())),
        "items": dict(soak.tally.items),
        "sessions": {lane.name: lane.sessions for lane in soak.lanes},
        "MiB a minute": {name: round(each.slope(WARM_UP), 2) for name, each in soak.levels.items()},
        "MiB a minute, with free parts of the heap": {
            name: round(each.resident_slope(WARM_UP), 2) for name, each in soak.levels.items()
        },
        "MiB resident": {name: round(each.resident[-1][1]) for name, each in soak.levels.items()},
        "faults": faults,
    }
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        for name, value in result.items():
            if name != "faults":
                print(f"{name}: {value}")
        print(*faults[:100], sep="\n")
        print(f"{len(faults)} faults" if faults else "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
