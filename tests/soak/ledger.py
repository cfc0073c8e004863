"""Files of all calls, all runs of handlers and their ends, and the check that they agree.

Clients and servers are different processes, and some are killed. So each writes a line to a file as
soon as something happens, with one system call, and keeps nothing in memory. The times come from
CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ENDED = frozenset({"returned", "raised", "stopped"})
"""Outcomes after which the handler must have ended: laws 2 and 3 of the guarantees."""
RAN = frozenset({"returned", "raised"})
"""Outcomes after which the handler must have run, once."""


class Ledger:
    """A file to which several processes append lines."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, label: int, what: str, where: str) -> None:
        """Add a line.

        Args:
            label: the number of the call.
            what: the event, in one word.
            where: for people: the method, or the lane and the method.
        """
        os.write(self._file, f"{label} {what} {time.monotonic_ns()} {where}\n".encode())

    def close(self) -> None:
        os.close(self._file)


@dataclass
class Account:
    """The result of the comparison of both ledgers."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def compare(asked: Path, ran: Path) -> Account:
    """Compare the outcomes of all calls with the runs of all handlers.

    Each call has one outcome; no handler ran twice; one that was reported as not started did not
    run; one that returned has run; and none was still running when its caller went on.
    """
    account = Account()
    began: Counter[int] = Counter()
    ended: dict[int, int] = {}
    for label, what, at, _ in _lines(ran):
        if what == "begin":
            began[label] += 1
        else:
            ended[label] = at
    outcomes: Counter[int] = Counter()
    went_on: dict[int, int] = {}
    for label, what, at, where in _lines(asked):
        call = f"call {label} ({where})"
        if what == "went_on":  # the caller went on, and its outcome follows
            went_on[label] = at
            continue
        outcomes[label] += 1
        account.outcomes[what] += 1
        if what == "not_started" and began[label]:
            account.faults.append(f"{call} ran, but its caller was told that it did not")
        if what in RAN and not began[label]:
            account.faults.append(f"{call} {what}, but its handler did not run")
        if what in ENDED and began[label] and ended.get(label, at + 1) > went_on.pop(label, at):
            account.faults.append(f"{call} {what} before its handler had ended")
    account.faults += [
        f"call {label} ran {runs} times" for label, runs in began.items() if runs > 1
    ]
    account.faults += [
        f"call {label} has {several} outcomes" for label, several in outcomes.items() if several > 1
    ]
    account.faults += [
        f"call {label} has no outcome" for label in itertools.chain(began) if not outcomes[label]
    ]
    return account


def _lines(path: Path) -> Iterator[tuple[int, str, int, str]]:
    with path.open() as lines:
        for line in lines:
            label, what, at, where = line.rstrip("\n").split(" ", 3)
            yield int(label), what, int(at), where
