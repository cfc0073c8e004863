"""Open a session from a URL, and report each failure in one line."""

from __future__ import annotations

import contextlib
import json
import shlex
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trio_rpc.cli.exits import Unreachable, Usage
from trio_rpc.cli.terminal import safe
from trio_rpc.client import connect
from trio_rpc.errors import RpcError
from trio_rpc.process import open_process
from trio_rpc.session.session import Session
from trio_rpc.tracing import print_trace
from trio_rpc.util.exact_json import exact_float, no_constant, unique_keys

__all__ = ["Target", "connected", "parse_json"]


EXEC = "exec:"
"""The prefix of a command, in place of a URL, for a program that serves its parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, and the credentials for it.

    Attributes:
        url: its URL, or ``exec:`` and the command that starts it.
        ca: a PEM file with the certificates to trust for ``tls`` and ``wss``; None for the
            system's.
        credentials: JSON text, or None.
        trace: whether to print each step of the session's calls on standard error.
    """

    url: str
    ca: Path | None = None
    credentials: str | None = None
    trace: bool = False


@contextlib.asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Session]:
    """Connect, or start the server as a child process; the block owns the session.

    Raises:
        Usage: the URL, the file or the credentials are invalid.
        Unreachable: the session cannot be opened.
    """
    options: dict[str, Any] = {}
    if target.ca is not None:
        options["ssl_context"] = _trusting(target.ca)
    if target.credentials is not None:
        options["credentials"] = parse_json(target.credentials, "--credentials")
    if target.trace:
        options["trace"] = print_trace
    async with contextlib.AsyncExitStack() as stack:
        try:
            session = await stack.enter_async_context(_session(target.url, options))
        except ValueError as exc:
            raise Usage(safe(exc)) from exc
        except (OSError, RpcError) as exc:
            text = safe(exc)
            raise Unreachable(text if target.url in text else f"{target.url}: {text}") from exc
        yield session


def _session(url: str, options: dict[str, Any]) -> contextlib.AbstractAsyncContextManager[Session]:
    if not url.startswith(EXEC):
        return connect(url, **options)
    if "ssl_context" in options:
        raise ValueError("a child process has no certificate, so --ca cannot be used with it")
    return open_process(shlex.split(url.removeprefix(EXEC)), **options)


def parse_json(text: str, what: str) -> Any:
    """Read JSON without loss. Raises Usage, whose text names the mistake and its place."""
    try:
        return json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_float=exact_float,
            parse_constant=no_constant,
        )
    except json.JSONDecodeError as exc:
        where = (
            f"line {exc.lineno}, column {exc.colno}" if exc.lineno > 1 else f"column {exc.colno}"
        )
        raise Usage(f"{what} must be JSON: {exc.msg} at {where} of {safe(text, 60)}") from exc
    except (RecursionError, ValueError) as exc:  # too deep, too many digits, a repeated key
        raise Usage(f"{what} must be JSON that can be read: {safe(exc, 100)}") from exc


def _trusting(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as exc:  # SSLError is one
        raise Usage(f"--ca {safe(ca)}: {safe(exc.strerror or exc)}") from exc
