"""Checks of the tests themselves: signals, deadlines, cancel scopes, slow tests, file names."""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from helpers import slow_part, slow_tests
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
INTERRUPT = "tests/session/test_interrupt.py::test_ctrl_c_cancels_the_remote_handler_and_is_raised"


def _ignore_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no signals to ignore")
def test_a_test_that_interrupts_passes_although_the_parent_ignores_signals():
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(  # noqa: S603 - our own tests
        [*command, "--timeout", "20", INTERRUPT],
        cwd=TESTS.parent,
        preexec_fn=_ignore_signals,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_hypothesis_has_no_deadline():
    assert settings.default.deadline is None
    assert settings.default.print_blob
    assert HealthCheck.too_slow in settings.default.suppress_health_check


SCOPES = {"CancelScope", "move_on_after", "move_on_at"}


def _is_scope(expression):
    """Tell whether an expression opens a scope that may swallow a Cancelled."""
    if not isinstance(expression, ast.Call):
        return False
    shields = any(each.arg == "shield" for each in expression.keywords)
    return ast.unparse(expression.func).rpartition(".")[2] in SCOPES and not shields


def _raises_in_scopes(node, scope=None):
    """Yield each ``pytest.raises`` of a function inside a cancel scope, and that scope's block."""
    if isinstance(node, ast.With | ast.AsyncWith):
        for item in node.items:
            expression = item.context_expr
            if scope is not None and ast.unparse(expression).startswith("pytest.raises("):
                yield item, scope
            if _is_scope(expression):
                scope = node
    inner = ast.AsyncFunctionDef | ast.FunctionDef | ast.Lambda
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, inner):
            yield from _raises_in_scopes(child, scope)


def _names_after(block, function):
    lines = range(block.end_lineno + 1, function.end_lineno + 1)
    return {
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and node.lineno in lines
    }


def cannot_fail(source):
    """Return the lines of ``pytest.raises`` that a cancel scope round them keeps from failing.

    If the block ends with a Cancelled in place of the error, the scope swallows that, and the test
    passes. The check is valid if the test uses the caught exception after the scope.
    """
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef):
            continue
        for item, scope in _raises_in_scopes(ast.Module(function.body, [])):
            caught = item.optional_vars
            if caught is None or ast.unparse(caught) not in _names_after(scope, function):
                found.append(item.context_expr.lineno)
    return found


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.stem)
def test_no_cancel_scope_hides_a_failed_pytest_raises(path):
    assert cannot_fail(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("block", "lines"),
    [
        ("with CancelScope() as scope, pytest.raises(ValueError):\n    await f()", [2]),
        ("with pytest.raises(ValueError), CancelScope() as scope:\n    await f()", []),
        ("with trio.move_on_after(1):\n    with pytest.raises(ValueError):\n     f()", [3]),
        (
            (
                "with CancelScope():\n    with pytest.raises(ValueError) as caught:\n     f()\n"
                "  assert caught"
            ),
            [],
        ),
        (
            (
                "with CancelScope():\n    with pytest.raises(ValueError) as caught:\n     f()\n"
                "    assert caught"
            ),
            [3],
        ),
        ("with CancelScope(shield=True):\n    with pytest.raises(ValueError):\n     f()", []),
    ],
)
def test_a_cancel_scope_round_pytest_raises_is_found(block, lines):
    assert cannot_fail(f"async def test():\n  {block}") == lines


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/2/3", "a/b", " 1/2"])
def test_an_invalid_part_of_the_slow_tests_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(text)):
        slow_part.part(text)


class Named:
    """A stand-in for a test item, with the two members that `slow_part` reads."""

    def __init__(self, number, *, slow):
        self.nodeid = f"test_{number}"
        self._markers = {"slow": slow}

    def get_closest_marker(self, name):
        return self._markers[name]


def test_each_slow_test_is_in_one_part_and_each_quick_test_in_all():
    tests = [Named(number, slow=number % 3 == 0) for number in range(60)]
    for each in tests:
        parts = [slow_part.is_in_part(each, slow_part.part(text)) for text in ("1/2", "2/2")]
        assert sum(parts) == (1 if each.get_closest_marker("slow") else 2)
        assert slow_part.is_in_part(each, slow_part.part("1/1"))
    for text in ("1/2", "2/2"):  # each has about half of the slow tests
        assert sum(slow_part.is_in_part(each, slow_part.part(text)) for each in tests) > 43


def test_each_test_that_is_listed_as_slow_exists():
    found = {path.name: path.read_text("utf-8") for path in TESTS.rglob("test_*.py")}
    assert set(found) >= slow_tests.MODULES
    for module, tests in slow_tests.TESTS.items():
        for test in tests - {"runTest"}:  # hypothesis adds it to a state machine
            assert f"def {test}(" in found[module]


def test_names_of_test_modules_are_unique():
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert names.most_common(1)[0][1] == 1, names.most_common(3)
