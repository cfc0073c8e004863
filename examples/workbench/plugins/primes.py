"""A plugin that keeps a processor busy, without holding up the main process or a page."""

from __future__ import annotations

import trio
import trio_rpc

from examples.workbench.interface import Command, Outcome, Plugin, Window

PART = 2000  # numbers between two looks at the cancellation
COUNT = Command(
    name="count",
    title="Count primes",
    about="Counts the primes below a number.",
    label="Below",
    default="500000",
)


def is_prime(number: int) -> bool:
    return number > 1 and all(number % each for each in range(2, int(number**0.5) + 1))


class Primes(Plugin):
    async def commands(self) -> list[Command]:
        return [COUNT]

    async def run(self, command: str, argument: str, window: Window) -> Outcome:
        if command != COUNT.name:
            raise ValueError(f"there is no command {command!r}")
        below = int(argument)
        found: list[int] = []
        for start in range(0, below, PART):
            found += filter(is_prime, range(start, min(start + PART, below)))
            await window.progress(start / below, f"{len(found)} primes below {start + PART}")
        tail = ", ".join(map(str, found[-10:]))
        return Outcome(f"{len(found)} primes below {below}", [f"the last ones: {tail}"])


if __name__ == "__main__":
    trio.run(trio_rpc.serve_parent, Primes())
