"""A plugin that finds copies of files. It asks before it reads them."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import trio
import trio_rpc

from examples.workbench.interface import Command, Outcome, Plugin, Window

MOST_LINES, MOST_NAMES = 100, 4  # of groups, and of files in a group
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
COPIES = Command(
    name="copies",
    title="Find copies",
    about="Finds files with the same contents. Leaves out hidden folders, and asks before it reads.",
    label="Folder",
    default=".",
)


class Files(Plugin):
    """The commands on the files below one folder, and on no others."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    async def commands(self) -> list[Command]:
        return [COPIES]

    async def run(self, command: str, argument: str, window: Window) -> Outcome:
        if command != COPIES.name:
            raise ValueError(f"there is no command {command!r}")
        await window.progress(0, "listing the files")
        sizes = await trio.to_thread.run_sync(self._sizes, self._resolve(argument))
        candidates = [path for paths in same(sizes) for path in paths]
        total = sum(sizes[path] for path in candidates)
        question = (
            f"{len(candidates)} of {len(sizes)} files are as long as another one. "
            f"Read {human(total)} to compare them?"
        )
        if not candidates or not await window.confirm(question):
            return Outcome(f"{len(sizes)} files; none was read")
        digests = {}
        done, shown = 0, -1.0
        for path in candidates:
            digests[path] = await trio.to_thread.run_sync(digest, path)
            done += sizes[path]
            if (share := done / (total or 1)) - shown >= 0.01:
                await window.progress(shown := share, str(path.relative_to(self.root)))
        return self._outcome(list(same(digests)), sizes)

    def _resolve(self, folder: str) -> Path:
        top = (self.root / folder.strip("/")).resolve()
        if not top.is_relative_to(self.root) or not top.is_dir():
            raise ValueError(f"there is no folder {folder!r} here")
        return top

    def _sizes(self, top: Path) -> dict[Path, int]:
        """Return the sizes of all files. A thread runs this, until the command is cancelled."""
        sizes = {}
        for folder, folders, names in os.walk(top):
            trio.from_thread.check_cancelled()
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(folder, name) for name in names):
                if path.is_file() and not path.is_symlink():
                    sizes[path] = path.stat().st_size
        return sizes

    def _outcome(self, groups: list[list[Path]], sizes: dict[Path, int]) -> Outcome:
        spare = [path for group in groups for path in group[1:]]
        wasted = human(sum(sizes[path] for path in spare))
        lines = [self._line(group) for group in groups[:MOST_LINES]]
        return Outcome(f"{len(spare)} copies among {len(sizes)} files: {wasted}", lines)

    def _line(self, group: list[Path]) -> str:
        more = [f"and {len(group) - MOST_NAMES} more"] if len(group) > MOST_NAMES else []
        names = [str(path.relative_to(self.root)) for path in group[:MOST_NAMES]]
        return " = ".join(names + more)


def same(values: Mapping[Path, object]) -> Iterable[list[Path]]:
    """Return the groups of at least two paths that have the same value."""
    groups: dict[object, list[Path]] = defaultdict(list)
    for path, value in values.items():
        groups[value].append(path)
    return (sorted(group) for group in groups.values() if len(group) > 1)


def digest(path: Path) -> str:
    """Return a digest of a file, or a unique one if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return str(path)


def human(size: float) -> str:
    """Return a size in a unit that people can read."""
    unit = 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {UNITS[unit]}" if unit and size < 100 else f"{size:.0f} {UNITS[unit]}"


if __name__ == "__main__":
    trio.run(trio_rpc.serve_parent, Files(Path.cwd()))
