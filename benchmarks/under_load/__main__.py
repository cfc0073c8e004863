"""Load and abuse of one server, and figures that must hold meanwhile.

Run it with ``python -m benchmarks.under_load``. All parts take about ten minutes. Server, clients
and the good client that is timed are separate processes on loopback.

The exit status is 1 if a figure is missed. With ``--quick``, each part does little and takes
seconds, and figures that depend on the machine's speed are shown but not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import trio

from benchmarks.machine import describe
from benchmarks.under_load.parts import PARTS, QUICK, Figure, Sizes

LONGEST = 1800.0
"""Seconds after which a part counts as hung."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts. Return 0 if all figures hold, otherwise 1."""
    options = _parser().parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    if options.seconds is not None:
        sizes = replace(sizes, seconds=options.seconds)
    result: dict[str, Any] = {"machine": describe(), "parts": {}}
    missed = 0
    for name in options.only or PARTS:
        load, began = os.getloadavg()[0], time.monotonic()
        figures = trio.run(_bounded, name, sizes)
        took = time.monotonic() - began
        result["parts"][name] = {
            "load before": load,
            "seconds": round(took, 1),
            "figures": [asdict(each) | {"holds": each.holds} for each in figures],
        }
        missed += sum(_is_missed(each, quick=options.quick) for each in figures)
        if not options.json:
            print(f"{name} ({PARTS[name].__doc__}) took {took:.0f} s; load before: {load:.1f}")
            print(*(_line(each, quick=options.quick) for each in figures), sep="\n", flush=True)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"{missed} figures missed" if missed else "all figures hold")
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.under_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="run this part; may be repeated"
    )
    parser.add_argument("--seconds", type=float, help="of the parts idle and busy (default: 60)")
    parser.add_argument("--quick", action="store_true", help="only show that the parts work")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


async def _bounded(name: str, sizes: Sizes) -> list[Figure]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_fail_after, LONGEST)
        figures = await PARTS[name](sizes)
        nursery.cancel_scope.cancel()
    return figures


async def _fail_after(seconds: float) -> None:
    """End a part that hangs. A deadline would travel with each of the calls that are measured."""
    await trio.sleep(seconds)
    raise trio.TooSlowError


def _is_missed(figure: Figure, *, quick: bool) -> bool:
    return not figure.holds and not (quick and figure.of_speed)


def _line(figure: Figure, *, quick: bool) -> str:
    bound = "" if figure.most is None else f"at most {figure.most:g}"
    verdict = "  MISSED" if _is_missed(figure, quick=quick) else ""
    return f"  {figure.name:44} {figure.value:12,.2f}  {bound}{verdict}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
