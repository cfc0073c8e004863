"""Floors, the library and peers: one module each, listed here in the order of the tables.

To add a peer, write a module with `ADAPTERS` and put its name into MODULES. A peer that is not
installed is left out, with the reason.
"""

from __future__ import annotations

import importlib

from benchmarks.adapter import Adapter

__all__ = ["MODULES", "available", "find"]

MODULES = (
    "floor_blocking",
    "floor_asyncio",
    "floor_uvloop",
    "floor_echo",
    "floor_msgspec",
    "floor_direct",
    "floor_nursery",
    "floor_inline",
    "floor_scopes",
    "floor_items",
    "floor_websocket",
    "library",
    "peer_grpcio",
    "peer_grpclib",
    "peer_aiorpcx",
    "peer_fastapi_websocket_rpc",
    "peer_rpyc",
    "peer_pyro5",
    "peer_zerorpc",
    "peer_pycapnp",
    "peer_pyzmq",
    "peer_multiprocessing",
    "peer_jsonrpc_websockets",
    "peer_trio_jsonrpc",
    "transports",
    "nats",
    "child",
    "forwarded",
    "gateway",
    "browser",
)

UNUSABLE = {
    "tractor": "its newest release, 0.1.0a5, imports trio.MultiError, which Trio has removed",
    "purerpc": "its newest release, 0.8.0, requires h2 3, but hypercorn requires a newer h2",
}
"""Libraries that cannot be measured beside the others, with the reason."""


def _adapters(module: str) -> tuple[Adapter, ...]:
    found: tuple[Adapter, ...] = importlib.import_module(f"{__name__}.{module}").ADAPTERS
    return found


def find(module: str, name: str) -> Adapter:
    """Return one adapter. Only its own module is imported, to keep the process small."""
    return next(adapter for adapter in _adapters(module) if adapter.name == name)


def available() -> tuple[list[tuple[str, Adapter]], dict[str, str]]:
    """Return (module, adapter) of all importable modules, and module -> reason of the others."""
    found: list[tuple[str, Adapter]] = []
    absent = dict(UNUSABLE)
    for module in MODULES:
        try:
            found += [(module, adapter) for adapter in _adapters(module)]
        except ModuleNotFoundError as error:
            absent[module] = f"not installed: {error.name}"
        except ImportError as error:
            absent[module] = str(error)
    return found, absent
