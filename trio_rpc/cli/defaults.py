"""Defaults of a command's arguments, from the environment and from ``pyproject.toml``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trio_rpc.cli.connecting import PLAIN
from trio_rpc.cli.exits import Usage
from trio_rpc.cli.terminal import safe
from trio_rpc.pool.targets import EXEC

__all__ = ["words_of"]

PREFIX = "TRIO_RPC_"
VARIABLE = f"{PREFIX}URL"
FILE = "pyproject.toml"
TABLE = "tool.trio-rpc"
KEYS = {"url": str, "ca": str, "cert": str, "key": str, "server-name": str}
"""The keys of the table. Credentials are not among them: the file is usually committed."""
ENCRYPTED = ("tls:", "wss:", "https:", "nats:", "dns+tls:")
"""How the URLs begin whose options for TLS are used."""
REPLACED_BY = {"ca": "insecure", "server-name": "insecure", "key": "cert"}
"""For a key, another option: if that is given, the default of the key belongs to something else."""


def words_of(
    arguments: Sequence[str], *, taking_url: Collection[str], switches: Collection[str]
) -> list[str]:
    """Return the words of a command line, with defaults for the missing ones.

    A command that requires a URL, and gets none, uses ``TRIO_RPC_URL``, or else the URL in the
    table ``[tool.trio-rpc]``. The other keys of the table are options of such a command.
    Variables such as ``TRIO_RPC_CA`` are options of every command that requires a URL. Options for
    TLS are added to no URL without it.

    Args:
        arguments: the words as typed.
        taking_url: the commands whose first argument is a URL.
        switches: the options without a value, such as ``--json``.

    Raises:
        Usage: the table is invalid, or there is no URL.
    """
    words = ["@-" if word == "-" else word for word in arguments]  # "-" would look like an option
    if not words or words[0] not in taking_url or {"--help", "-h"} & set(words):
        return words
    command, *rest = words
    options = {key: os.environ.get(PREFIX + key.upper().replace("-", "_")) for key in KEYS}
    url = first = _first_argument(rest, switches)
    if first is None or not is_url(first):
        table = _table()
        options = {key: options[key] or table.get(key) for key in KEYS}
        url = options["url"]
    if url is None:
        given = (
            f"{command} requires a URL" if first is None else f"{safe(first, 100)!r} is not a URL"
        )
        raise Usage(f"{given}: give one first, such as tcp://127.0.0.1:5000, or set {VARIABLE}")
    added = _added(url, rest, options)
    return [command, *added, *rest] if url is first else [command, url, *added, *rest]


def _added(url: str, typed: Sequence[str], options: Mapping[str, str | None]) -> Iterator[str]:
    """Yield the words of the options that have a default and fit the URL and the typed words."""
    others = [word.removeprefix("--also=") for word in typed]
    if url.startswith(PLAIN) and not any(each.startswith(ENCRYPTED) for each in others):
        return
    for key, value in options.items():
        replaced_by = REPLACED_BY.get(key, key)
        if value and key != "url" and not {key, replaced_by} & _names(typed):
            yield from (f"--{key}", value)


def is_url(word: str) -> bool:
    """Return whether a word is meant as a URL, or as a command in its place."""
    return "://" in word or word.startswith((EXEC, "unix:"))


def _first_argument(words: Sequence[str], switches: Collection[str]) -> str | None:
    """Return the first word that is neither an option nor the value of one."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            return next(rest, None)
        if not word.startswith("-"):
            return word
        if "=" not in word and word not in switches:
            next(rest, None)  # its value
    return None


def _names(words: Sequence[str]) -> set[str]:
    """Return the names of the options among the words."""
    return {word[2:].partition("=")[0] for word in words if word.startswith("--")}


def _table() -> Mapping[str, str]:
    """Return the table of the nearest ``pyproject.toml``, in this folder or above. Raises Usage."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / FILE
        if path.is_file():
            tools = _read(path).get("tool", {})
            if not isinstance(tools, dict):
                raise Usage(f"{safe(path, 200)}: tool must be a table")
            return _checked(path, tools.get("trio-rpc", {}))
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
