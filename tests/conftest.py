"""Settings and hooks of the whole suite, whether a terminal, cron or ``nohup`` starts it."""

from __future__ import annotations

import gc
import os
import signal

import pytest
from helpers import slow_part, slow_tests
from helpers.chromium import Chromium, why_not
from hypothesis import HealthCheck, settings

COMMON = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # it only measures how busy the machine is
)
settings.register_profile("suite", COMMON, derandomize=True)
settings.register_profile("explore", COMMON, max_examples=1_000)
settings.load_profile("suite")  # ``--hypothesis-profile explore`` draws other examples

REMAIN_IGNORED = {"SIGHUP", "SIGPIPE", "SIGXFSZ"}
"""``nohup`` ignores the first one; Python itself ignores the others."""


def pytest_configure(config):
    """Reset the signal handlers of this process and its children to a foreground program's.

    A program that a script starts with ``&`` ignores SIGINT, and so do its children. Python then
    installs no handler that raises KeyboardInterrupt, and a test that interrupts would hang.
    """
    for number in signal.valid_signals():
        name = getattr(number, "name", "")
        if name not in REMAIN_IGNORED and signal.getsignal(number) is signal.SIG_IGN:
            ordinary = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, ordinary)
            config.add_cleanup(lambda number=number: signal.signal(number, signal.SIG_IGN))
    if hasattr(signal, "pthread_sigmask"):
        blocked = signal.pthread_sigmask(signal.SIG_SETMASK, [])
        config.add_cleanup(lambda: signal.pthread_sigmask(signal.SIG_SETMASK, blocked))


def pytest_addoption(parser):
    """Add two options: the part of the slow tests to run, and the transports of sessions."""
    parser.addoption(
        "--transport",
        action="append",
        metavar="KIND",
        help="run the tests that take `session_pair` over this transport only; may be repeated",
    )
    parser.addoption(
        "--slow-part",
        metavar="K/N",
        type=slow_part.part,
        default="1/1",
        help="of the slow tests, run only the K-th of N parts (default: 1/1, all of them)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark the slow tests, and deselect those of the other parts."""
    for item in items:
        if slow_tests.is_slow(item.path.name, getattr(item, "originalname", item.name)):
            item.add_marker("slow")
    which = config.getoption("--slow-part")
    others = [item for item in items if not slow_part.is_in_part(item, which)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if slow_part.is_in_part(item, which)]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Freeze the collected tests: without this, a garbage collection takes a third of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def chromium():
    """Run a browser for the tests of a module."""
    if why_not() and not os.environ.get("CI"):
        pytest.skip(f"no browser: {why_not()}")
    browser = Chromium()
    yield browser
    browser.stop()
