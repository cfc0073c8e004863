"""The processes and the descriptors of this program, for tests that none is left."""

from __future__ import annotations

import os
from pathlib import Path


def exists(pid):
    """Tell whether a process exists. One that has ended exists until it is reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def descriptors():
    """Return the open descriptors by number, without the one that lists them."""
    return {each.name: each.readlink() for each in Path("/dev/fd").iterdir() if each.is_symlink()}
