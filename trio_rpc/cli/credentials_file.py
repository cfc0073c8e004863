"""The credentials that ``serve`` requires, from a file."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

from trio_rpc.cli.connecting import parse_json
from trio_rpc.cli.exits import Usage
from trio_rpc.cli.terminal import safe
from trio_rpc.errors import Refused
from trio_rpc.session.options import Authenticate
from trio_rpc.session.session import Session

__all__ = ["check_against"]


def check_against(path: Path) -> Authenticate:
    """Return a check that accepts the credentials in a file, and refuses all others.

    Args:
        path: a file with one JSON value a line; blank lines do not count.

    Raises:
        Usage: the file cannot be read, has no credentials, or a line is not JSON.
    """
    accepted = _read(path)

    async def check(_session: Session, credentials: Any) -> None:
        # All are compared, each in a time that does not depend on where they differ.
        given = _canonical(credentials)
        if not sum(hmac.compare_digest(given, one) for one in accepted):
            raise Refused("wrong credentials" if credentials is not None else "no credentials")

    return check


def _read(path: Path) -> list[bytes]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise Usage(f"--require-credentials-file {safe(path, 200)}: {safe(reason)}") from exc
    values = [_value(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]
    if not values or None in values:
        raise Usage(f"{safe(path, 200)} must have a JSON value a line, and none may be null")
    return [_canonical(value) for value in values]


def _value(line: str, number: int, path: Path) -> Any:
    try:
        return parse_json(line, "it")
    except Usage:  # its text would show the line, which is a secret
        raise Usage(f"line {number} of {safe(path, 200)} is not JSON") from None


def _canonical(value: Any) -> bytes:
    """Return equal bytes for equal JSON values. Any other object gives bytes that no value has."""
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return b""
