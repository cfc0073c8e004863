"""The syntax trees of modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path


class Sources(Mapping[str, ast.Module]):
    """The syntax tree of each module, parsed when it is first looked up.

    So a process that runs none of the tests that look at modules parses none of them.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._trees: dict[str, ast.Module] = {}

    def __getitem__(self, module: str) -> ast.Module:
        if module not in self._trees:
            path = self._paths[module]
            self._trees[module] = ast.parse(path.read_text(encoding="utf-8"), str(path))
        return self._trees[module]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
