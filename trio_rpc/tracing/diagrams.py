"""Pictures of a joined call: a sequence diagram as text, and as SVG or PNG through matplotlib."""

from __future__ import annotations

from os import PathLike
from typing import Any, Final

from trio_rpc.tracing.events import STEPS, TraceEvent
from trio_rpc.tracing.joining import JoinedCall
from trio_rpc.tracing.printing import shown

__all__ = ["draw_sequence", "sequence_text"]

_WIDTH: Final = 36
"""Characters of the caller's column."""

_CALLEE: Final = range(6, 15)
"""The steps of the callee."""

_ARRIVALS: Final = {6: 5, 15: 14}
"""The steps at which a message arrives, and those at which it is sent."""

_COLOR, _LIGHT = "#c2410c", "#b8bec6"


def sequence_text(call: JoinedCall) -> str:
    """Return a sequence diagram of one call: the caller at the left, the callee at the right.

    Each step has its time in milliseconds since the first known step.

    Args:
        call: a call that :func:`join` has joined.
    """
    start = _start(call)
    lines = [_title(call), "", f"{'caller':{_WIDTH}}      callee"]
    events = list(call.steps.values())
    for event, following in zip(events, [*events[1:], None], strict=True):
        text = _step_text(event, start)
        if event.step in _CALLEE:
            arrow = "<----" if _is_arrow(event, following) else ""
            lines.append(f"{'':{_WIDTH}} {arrow:5} {text}".rstrip())
        else:
            arrow = "---->" if _is_arrow(event, following) else ""
            lines.append(f"{text:{_WIDTH}} {arrow}".rstrip())
    return "\n".join(lines)


def draw_sequence(call: JoinedCall, path: str | PathLike[str]) -> None:
    """Draw a sequence diagram of one call with matplotlib, which must be installed.

    Args:
        call: a call that :func:`join` has joined.
        path: the file to write; its suffix is the format, such as ``.svg`` or ``.png``.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure = _figure(call)
    import matplotlib as mpl  # noqa: PLC0415 - only this function needs it

    # Text stays text, and the same call makes the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "trio_rpc"}):
        metadata = {"Date": None} if str(path).endswith(".svg") else None
        figure.savefig(path, metadata=metadata)


def _figure(call: JoinedCall) -> Any:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only this function needs it
    except ModuleNotFoundError as exc:
        text = "draw_sequence needs matplotlib: run pip install matplotlib"
        raise ModuleNotFoundError(text, name=exc.name) from exc
    start, rows = _start(call), {step: -row for row, step in enumerate(call.steps)}
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-1.6, 2.6)
    axes.set_ylim(-len(rows), 2)
    axes.text(0.5, 1.6, _title(call), ha="center", weight="bold", parse_math=False)
    for x, name in ((0, "caller"), (1, "callee")):
        axes.text(x, 0.7, name, ha="center")
        axes.plot([x, x], [0.4, -len(rows) + 0.6], color=_LIGHT, zorder=0)
    for step, event in call.steps.items():
        x, align, shift = (1, "left", 0.06) if step in _CALLEE else (0, "right", -0.06)
        axes.plot([x], [rows[step]], marker="o", markersize=4, color=_COLOR)
        text = _step_text(event, start)
        axes.text(x + shift, rows[step], text, ha=align, va="center", size=8, parse_math=False)
    for arrival, departure in _ARRIVALS.items():
        if arrival in rows and departure in rows:
            left, right = (0, 1) if arrival in _CALLEE else (1, 0)
            axes.annotate(
                "",
                xy=(right, rows[arrival]),
                xytext=(left, rows[departure]),
                arrowprops={"arrowstyle": "->", "color": _COLOR},
            )
    return figure


def _start(call: JoinedCall) -> float:
    return next(iter(call.steps.values())).time


def _title(call: JoinedCall) -> str:
    name = f"{shown(call.method)}, call {call.call} of session {shown(call.session)}"
    return f"{name}: {shown(call.outcome)} after {call.duration * 1000:.3f} ms"


def _step_text(event: TraceEvent, start: float) -> str:
    return f"{(event.time - start) * 1000:9.3f} ms {event.step:3} {STEPS[event.step]}"


def _is_arrow(event: TraceEvent, following: TraceEvent | None) -> bool:
    """Return whether the next line is at the other end: a message passes between the two."""
    return following is not None and _ARRIVALS.get(following.step) == event.step
