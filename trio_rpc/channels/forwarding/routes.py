"""Find the handler for a channel that the other end opens by name."""

from __future__ import annotations

import keyword
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

__all__ = ["ChannelHandler", "Router", "parameters_of"]

ChannelHandler: TypeAlias = Callable[..., Awaitable[object]]
"""``async def handler(channel, **parameters)``"""

_PARAMETER = re.compile(r"\{(.*)\}")


class Router:
    """Finds routes: the first pattern that matches a name, part by part.

    Args:
        routes: a mapping from patterns, such as ``"plugins/{name}"``, to handlers.

    Raises:
        ValueError: a pattern is empty, or a parameter in it is not an identifier, is ``channel``,
            or is used twice.
    """

    def __init__(self, routes: Mapping[str, ChannelHandler]) -> None:
        self._routes: list[tuple[list[tuple[str, str]], ChannelHandler]] = [
            (_parse(pattern), handler) for pattern, handler in routes.items()
        ]

    def find(self, name: str) -> tuple[ChannelHandler, dict[str, Any]] | None:
        """Return the handler for a name and its parameters, or None without a matching route."""
        parts = name.split("/")
        for pattern, handler in self._routes:
            parameters = _match(pattern, parts)
            if parameters is not None:
                return handler, parameters
        return None


def parameters_of(pattern: str) -> list[str]:
    """Return the names of the parameters in a pattern. Raises ValueError for a bad pattern."""
    return [name for _, name in _parse(pattern) if name]


def _parse(pattern: str) -> list[tuple[str, str]]:
    """Return the parts of a pattern, each as a literal or as the name of a parameter."""
    if not isinstance(pattern, str):
        raise TypeError(f"a route must be a str, not {pattern!r:.200}")
    if not pattern:
        raise ValueError("a route needs a pattern, such as 'plugins/{name}'")
    parts: list[tuple[str, str]] = []
    for part in pattern.split("/"):
        found = _PARAMETER.fullmatch(part)
        if found is None:
            if "{" in part or "}" in part:
                raise ValueError(f"route {pattern!r}: {part!r} is neither a text nor one {{name}}")
            parts.append((part, ""))
            continue
        name = found[1]
        if not name.isidentifier() or keyword.iskeyword(name) or name == "channel":
            raise ValueError(f"route {pattern!r}: {name!r} cannot be the name of a parameter")
        if any(name == other for _, other in parts):
            raise ValueError(f"route {pattern!r}: there are two parameters {name!r}")
        parts.append(("", name))
    return parts


def _match(pattern: list[tuple[str, str]], parts: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    parameters = {}
    for (text, parameter), part in zip(pattern, parts, strict=True):
        if parameter and part:
            parameters[parameter] = part
        elif parameter or part != text:
            return None
    return parameters
