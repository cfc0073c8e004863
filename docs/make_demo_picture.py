"""Make docs/demo.svg, a picture of `trio-rpc demo`: uv run python docs/make_demo_picture.py."""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path

import trio
from rich.console import Console, RenderableType

from trio_rpc.cli.demo import demo
from trio_rpc.cli.output import Output

PICTURE = Path(__file__).parent / "demo.svg"
WIDTH = 84
SHOWN = ("one scope tree", "A timeout here cancels the handler there", "Long jobs")
"""The steps of the demo that are in the picture, by their titles."""


class Recorder(Output):
    """Collects the views of the demo, step by step."""

    def __init__(self) -> None:
        super().__init__(as_json=False)
        self.steps: list[list[RenderableType]] = []

    @property
    def is_terminal(self) -> bool:
        """False, because moving progress bars do not belong in a picture."""
        return False

    def show(self, view: RenderableType) -> None:
        """Keep one view. The title and each heading begin a step."""
        if not self.steps or re.match(r"\s+\d  [A-Z]", text_of([view])):
            self.steps.append([])
        self.steps[-1].append(view)


def console() -> Console:
    """Return a console that records its output and writes nothing."""
    return Console(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )


def text_of(views: list[RenderableType]) -> str:
    """Return the texts of some views."""
    plain = console()
    for view in views:
        plain.print(view)
    return plain.export_text()


def record() -> list[RenderableType]:
    """Run the demo, and return the views of the steps that are shown."""
    recorder = Recorder()
    if trio.run(functools.partial(demo, recorder, quick=True)) != 0:
        raise SystemExit("a claim of the demo did not hold")
    steps = [step for step in recorder.steps if any(title in text_of(step) for title in SHOWN)]
    return [view for step in steps for view in step]


def draw(views: list[RenderableType]) -> str:
    """Return the picture. It uses the reader's own fonts, and loads none."""
    canvas = console()
    for view in views:
        canvas.print(view)
    picture = canvas.export_svg(title="trio-rpc demo", unique_id="demo")
    return re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)


if __name__ == "__main__":
    PICTURE.write_text(draw(record()), encoding="utf-8")
