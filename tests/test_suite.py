"""What holds of the tests themselves, wherever they run and whoever wrote them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
INTERRUPT = "tests/session/test_interrupt.py::test_ctrl_c_cancels_the_remote_handler_and_comes_out"


def _ignore_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to ignore")
def test_a_test_that_interrupts_passes_where_a_script_has_made_us_ignore_signals():
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


def test_no_example_has_a_deadline_on_a_busy_machine():
    assert settings.default.deadline is None
    assert settings.default.print_blob
