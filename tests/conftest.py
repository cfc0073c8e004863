"""What the whole suite needs, however it was started: from a terminal, by cron, behind ``nohup``."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("suite", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True, max_examples=1_000)
settings.load_profile("suite")  # ``--hypothesis-profile explore`` looks for examples of its own

REMAIN_IGNORED = {"SIGHUP", "SIGPIPE", "SIGXFSZ"}
"""``nohup`` means the first one; Python itself ignores the others."""


def pytest_configure(config):
    """Give this process, and so its child processes, the signal handlers of a foreground program.

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
