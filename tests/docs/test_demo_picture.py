"""docs/demo.svg shows the current demo: the program that made it makes the same picture again."""

from __future__ import annotations

import html
import importlib.util
import re
from collections import defaultdict

import pytest
from helpers.pages import DOCS

PICTURE = (DOCS / "demo.svg").read_text("utf-8")


def lines_of(picture):
    """Return the lines of text in a picture, from top to bottom."""
    lines = defaultdict(str)
    for y, text in re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>(.*?)</text>', picture, re.DOTALL):
        lines[float(y)] += html.unescape(text).replace("\xa0", " ")
    return [line for _, line in sorted(lines.items())]


def steps_of(picture):
    """Return the lines by step, without the numbers that differ from run to run."""
    steps = defaultdict(list)
    step = ""
    for line in lines_of(picture):
        heading = re.match(r" \d  (\w.*)$", line.rstrip())
        step = heading[1] if heading else step
        steps[step].append(re.sub(r"\d+", "N", line).strip(" │╭╮╰╯─├└"))
    return steps


@pytest.fixture(scope="module")
def now():
    pytest.importorskip("rich", reason="the extra cli is not installed")
    spec = importlib.util.spec_from_file_location(
        "make_demo_picture", DOCS / "make_demo_picture.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.draw(module.record())


def test_the_picture_matches_the_current_demo(now):
    shown, runs = steps_of(PICTURE), steps_of(now)
    assert list(shown) == list(runs)
    cancelled = "A timeout here cancels the handler there"
    assert [re.sub(r"[N.]+", "N", line) for line in shown[cancelled]] == [
        re.sub(r"[N.]+", "N", line) for line in runs[cancelled]
    ]
    # Which of the jobs call back at that moment, or have done so, differs from run to run.
    jobs = {_in_any_state(line) for line in shown["Long jobs"]}
    for line in runs["Long jobs"]:
        if "callback" not in line:
            assert _in_any_state(line) in jobs


def _in_any_state(line):
    return re.sub("client (waiting|running)", "client N", line)


def test_the_picture_shows_that_no_calls_are_left():
    assert "0 calls left" in "".join(lines_of(PICTURE))


def test_the_picture_loads_no_external_resource():
    assert re.findall(r"(?:href|url)\W*https?:", PICTURE) == []
