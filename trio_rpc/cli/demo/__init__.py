"""The command ``demo``: two processes that call and cancel each other."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from typing import Any

import trio
from rich.console import RenderableType

import trio_rpc
from trio_rpc.cli.demo import story, views
from trio_rpc.cli.demo.child import Child, running_child
from trio_rpc.cli.demo.tree import LiveCall
from trio_rpc.cli.exits import Exit, Unreachable
from trio_rpc.cli.output import Output
from trio_rpc.cli.terminal import safe
from trio_rpc.client import connect
from trio_rpc.errors import RpcError
from trio_rpc.session.session import Session

__all__ = ["demo"]

PATIENCE = 120.0
"""Seconds after which the demo gives up."""


async def demo(output: Output, *, quick: bool) -> int:
    """Run the demo; return the exit code, which is 0 if every claim of the demo held.

    Args:
        output: shows the demo, or reports it as JSON.
        quick: take about two seconds.
    """
    show = _Show(output, quick=quick)
    try:
        with trio.fail_after(PATIENCE):
            async with running_child() as child:
                await show.run(child)
    except (RpcError, OSError, trio.TooSlowError) as exc:
        raise Unreachable(f"the demo broke off: {type(exc).__name__}: {safe(exc)}") from exc
    show.finish(child)
    return Exit.OK if show.ok else Exit.FAILED


class _Show:
    """Runs the steps of the demo, and shows each one.

    Args:
        output: shows the steps.
        quick: do less of everything.
    """

    def __init__(self, output: Output, *, quick: bool) -> None:
        self._output = output
        self._quick = quick
        self._steps = 0
        self._screen = story.JobScreen()
        self._last: tuple[story.Measured, Any] | None = None
        self.ok = True
        self.report: dict[str, Any] = {}

    async def run(self, child: Child) -> None:
        """Connect to the server and run all steps."""
        self._introduce(child)
        async with connect(child.url, {"screen": self._screen}) as session:
            self._screen.session = session
            await self._plain(session)
            await self._concurrent(session)
            await self._cancel_from_here(session)
            await self._cancel_from_there(session)
            await self._lasting_calls(session)
            await self._jobs(session)
            await self._measure(session)

    def _introduce(self, child: Child) -> None:
        versions = (
            f"trio-rpc {trio_rpc.__version__}, Trio {trio.__version__},"
            f" Python {platform.python_version()}"
        )
        self.report["server"] = {"pid": child.pid, "url": child.url}
        self._output.show(views.title_view(os.getpid(), child.pid, child.url, versions))

    async def _plain(self, session: Session) -> None:
        self._step("Plain calls", "a result comes back, and so does an exception")
        calls = await story.call_plainly(session)
        self.report["plain"] = [asdict(call) for call in calls]
        self._check(views.plain_view(calls), ok=all(call.ok for call in calls))

    async def _concurrent(self, session: Session) -> None:
        self._step("Many calls at once", "one connection, one nursery, 200 calls in it")
        result = await story.call_concurrently(session)
        self.report["concurrent"] = {**asdict(result), "ok": result.ok}
        self._check(views.concurrent_view(result), ok=result.ok)

    async def _cancel_from_here(self, session: Session) -> None:
        self._step(
            "A timeout here cancels the handler there",
            f"with trio.move_on_after({story.PATIENCE_SECONDS}): await lab.hold('a lock')",
        )
        result = await story.cancel_from_here(session)
        self.report["cancel_from_here"] = {**asdict(result), "ok": result.ok}
        self._check(views.cancelled_view(result, "client"), ok=result.ok)

    async def _cancel_from_there(self, session: Session) -> None:
        self._step(
            "And the other way round",
            "the server calls this process back, and cancels that call",
        )
        result = await story.cancel_from_there(session, self._screen)
        self.report["cancel_from_there"] = {**asdict(result), "ok": result.ok}
        self._check(views.cancelled_view(result, "server"), ok=result.ok)

    async def _lasting_calls(self, session: Session) -> None:
        self._step(
            "Streams and tasks end with their scope", "a stream that is left, and a remote task"
        )
        uses = await story.use_stream_and_task(session)
        self.report["what_lives"] = [asdict(use) for use in uses]
        self._check(views.plain_view(uses), ok=all(use.ok for use in uses))

    async def _jobs(self, session: Session) -> None:
        self._step("Long jobs", "three calls at once, each given a function that moves its bar")
        pictures: list[list[LiveCall]] = []
        with views.JobBars(self._output) as bars:

            def picture(calls: list[LiveCall]) -> None:
                pictures.append(calls)
                self._output.show(views.tree_view(calls))

            self._screen.picture = picture
            self._screen.show = bars.show
            took = await story.run_jobs(session, self._screen, seconds=0.6 if self._quick else 3.0)
        expected = sum(steps for _, steps, _ in story.JOBS)
        self.ok = self.ok and self._screen.callbacks == expected and bool(pictures)
        self.report["jobs"] = {
            "took": took,
            "callbacks": self._screen.callbacks,
            "tree": [asdict(call) for calls in pictures for call in calls],
        }

    async def _measure(self, session: Session) -> None:
        self._step("In figures", "this machine, this Python, two processes, loopback")
        alone, together = (300, 2_000) if self._quick else (3_000, 20_000)
        measured = await story.measure(session, alone=alone, together=together)
        self._last = measured, session.statistics()

    def finish(self, child: Child) -> None:
        """Show the summary, after the server has ended."""
        if self._last is None:
            return
        measured, statistics = self._last
        left = statistics.calls_in + statistics.calls_out + statistics.notifications_in
        self.ok = self.ok and child.exit_code == 0 and not left
        self.report["figures"] = {
            "one_at_a_time": measured.one_at_a_time.as_dict(),
            "in_flight": measured.in_flight,
            "calls_per_second": round(measured.per_second),
        }
        self.report["statistics"] = asdict(statistics)
        self.report["server"]["exit_code"] = child.exit_code
        view = views.summary_view(measured, statistics, self._screen.callbacks, child.exit_code)
        self._output.show(view)
        if self._output.as_json:
            self._output.json({"ok": self.ok, **self.report})

    # ── showing ──────────────────────────────────────────────────────────────────────────────

    def _step(self, title: str, remark: str) -> None:
        self._steps += 1
        self._output.show(views.heading(self._steps, title, remark))

    def _check(self, view: RenderableType, *, ok: bool) -> None:
        self.ok = self.ok and ok
        self._output.show(view)
