"""What the whole suite needs, however it was started: from a terminal, by cron, behind ``nohup``."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("suite", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True, max_examples=1_000)
settings.load_profile("suite")  # ``--hypothesis-profile explore`` looks for examples of its own

ORDINARY = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
if hasattr(signal, "SIGCHLD"):
    ORDINARY[signal.SIGCHLD] = signal.SIG_DFL  # ignored, nobody learns the exit code of a child


def pytest_configure(config):
    """Give this process, and so its child processes, the signal handlers of a foreground program.

    A program that a script starts with ``&`` ignores SIGINT, and so do its children. Python then
    installs no handler that raises KeyboardInterrupt, and a test that interrupts would hang.
    """
    for number, handler in ORDINARY.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
            config.add_cleanup(lambda number=number: signal.signal(number, signal.SIG_IGN))
    if hasattr(signal, "pthread_sigmask"):
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDINARY)
        config.add_cleanup(lambda: signal.pthread_sigmask(signal.SIG_SETMASK, blocked))
