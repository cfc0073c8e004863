"""Defaults of a command's arguments, from the environment and from ``pyproject.toml``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from trio_rpc.cli.exits import Usage
from trio_rpc.cli.terminal import safe
from trio_rpc.pool.targets import EXEC

__all__ = ["words_of"]

VARIABLE = "TRIO_RPC_URL"
FILE = "pyproject.toml"
TABLE = "tool.trio-rpc"
KEYS = {"url": str, "ca": str, "cert": str, "key": str, "server-name": str}
"""The keys of the table. Credentials are not among them: the file is usually committed."""


def words_of(arguments: Sequence[str], *, taking_url: Collection[str]) -> list[str]:
    """Return the words of a command line, with defaults for the missing ones.

    A command that takes a URL, and gets none, gets the one of ``TRIO_RPC_URL``, or else that of
    the table ``[tool.trio-rpc]``. Its other keys are options of such a command.

    Args:
        arguments: the words as typed.
        taking_url: the commands whose first argument is a URL.

    Raises:
        Usage: the table is invalid.
    """
    words = ["@-" if word == "-" else word for word in arguments]  # "-" would look like an option
    if not words or words[0] not in taking_url or {"--help", "-h"} & set(words):
        return words
    command, *rest = words
    if rest and is_url(rest[0]):
        return words
    table = _table()
    url = os.environ.get(VARIABLE) or table.get("url")
    if url is None:
        return words
    options = [
        word
        for key, value in table.items()
        if key != "url" and not _has_option(rest, key)
        for word in (f"--{key}", value)
    ]
    return [command, url, *rest, *options]


def is_url(word: str) -> bool:
    """Return whether a word is meant as a URL, or as a command in its place."""
    return "://" in word or word.startswith(EXEC)


def _has_option(words: Sequence[str], key: str) -> bool:
    return any(word == f"--{key}" or word.startswith(f"--{key}=") for word in words)


def _table() -> Mapping[str, str]:
    """Return the table of the nearest ``pyproject.toml``, in this folder or above. Raises Usage."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / FILE
        if path.is_file():
            return _checked(path, _read(path).get("tool", {}).get("trio-rpc", {}))
    return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:  # the file is not TOML, or not UTF-8
        raise Usage(f"{safe(path, 200)} cannot be read: {safe(exc)}") from exc


def _checked(path: Path, table: Any) -> dict[str, str]:
    where = f"[{TABLE}] of {safe(path, 200)}"
    if not isinstance(table, dict):
        raise Usage(f"{where} must be a table")
    for key, value in table.items():
        if key not in KEYS:
            raise Usage(f"{where} has the key {safe(key, 60)}: known are {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]):
            raise Usage(f"{where}: {key} must be text")
    # Paths are relative to the file, wherever the command runs.
    files = {key: str(path.parent / table[key]) for key in ("ca", "cert", "key") if key in table}
    return {**table, **files}
