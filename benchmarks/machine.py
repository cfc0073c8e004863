"""The machine under the benchmark: cores, open files, resident memory, and a description."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import resource

__all__ = [
    "describe",
    "is_busy",
    "pick_cores",
    "pin",
    "raise_open_files",
    "resident_bytes",
    "seconds_waited",
]

PACKAGES = ("trio", "msgpack", "msgspec", "trio-websocket")
PEERS = (
    "uvloop",
    "grpcio",
    "grpclib",
    "aiorpcX",
    "fastapi-websocket-rpc",
    "rpyc",
    "Pyro5",
    "zerorpc",
    "pycapnp",
    "protobuf",
    "pyzmq",
    "websockets",
    "trio-jsonrpc",
)
"""Packages whose versions the report names, if they are installed."""


def _physical_core(cpu: int) -> str:
    """Return an id of the physical core of a cpu, or the cpu itself if that is unknown."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return str(cpu)


def pick_cores() -> tuple[int | None, int | None]:
    """Return a core for the server and another for the client, or None if that is unknown.

    They are two physical cores if possible, because threads of one core share its speed.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cpus = sorted(os.sched_getaffinity(0))
    apart = [cpu for cpu in cpus if _physical_core(cpu) != _physical_core(cpus[0])]
    others = apart or cpus[1:]
    return (cpus[0], others[0]) if others else (None, None)


def pin(core: int | None) -> None:
    """Pin this process to that core. None leaves the choice to the system."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def raise_open_files(wanted: int) -> int:
    """Raise the limit on open files towards `wanted`, and return the new limit."""
    if sys.platform == "win32":
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for pair in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):
        if soft >= wanted:
            break
        with contextlib.suppress(OSError, ValueError):  # above the hard limit, and not root
            resource.setrlimit(resource.RLIMIT_NOFILE, pair)
            soft = pair[0]
    return soft


def resident_bytes(pid: int) -> int:
    """Return the resident memory of that process. Raises OSError if there is no /proc."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def seconds_waited(pid: int) -> float:
    """Return how long other programs kept that process from its core, or 0 if unknown."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def is_busy() -> bool:
    """Tell whether another program needs a core at this moment. False if that is unknown."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) > 1
    return False


def _versions() -> dict[str, str]:
    versions = dict.fromkeys(PACKAGES, "not installed")
    for package in (*PACKAGES, *PEERS):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _revision() -> str | None:
    """Return the short hash of the checkout's commit, if git tells it."""
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - likewise
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or None
    return None


def describe() -> dict[str, Any]:
    """Describe the machine for readers of the figures, without identifying it."""
    server, client = pick_cores()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "pinned": None if server is None else {"server": server, "client": client},
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "packages": _versions(),
        "revision": _revision(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
    }
