"""Checks the files of a release: ``check_files.py DIST SOURCE``; run by .ci/release.

The sdist has all files of the source, the wheel has the package, and both are as large as expected.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

LARGEST_WHEEL = 1_100_000
LARGEST_SDIST = 2_300_000
"""Bytes: about 1.5 times the present sizes. A file packed by mistake is likely to exceed them."""

BESIDE_THE_PACKAGE = {
    "METADATA",
    "RECORD",
    "WHEEL",
    "entry_points.txt",
    "licenses/LICENSE",
}


def files(folder: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def check(what: str, found: set[str], wanted: set[str]) -> None:
    """Exit if the two sets differ."""
    for names, problem in ((wanted - found, "lacks"), (found - wanted, "also has")):
        if names:
            sys.exit(f"the {what} {problem} {', '.join(sorted(names)[:10])}")
    print(f"the {what} has its {len(found)} files")


def check_size(path: Path, largest: int) -> None:
    """Exit if a file is larger than expected."""
    size = path.stat().st_size
    if size > largest:
        sys.exit(f"{path.name} has {size} bytes, more than {largest}: see {__file__}")


def main(dist: Path, source: Path) -> None:
    """Check the one wheel and the one sdist in ``dist``."""
    [wheel] = dist.glob("*.whl")
    [sdist] = dist.glob("*.tar.gz")
    check_size(wheel, LARGEST_WHEEL)
    check_size(sdist, LARGEST_SDIST)
    name, version = wheel.name.split("-")[:2]
    package = {f"{name}/{path}" for path in files(source / name)}
    beside = {f"{name}-{version}.dist-info/{path}" for path in BESIDE_THE_PACKAGE}
    with zipfile.ZipFile(wheel) as archive:
        check("wheel", set(archive.namelist()), package | beside)
    with tarfile.open(sdist) as archive:
        found = {member.name.partition("/")[2] for member in archive if not member.isdir()}
    check("sdist", found, files(source) | {"PKG-INFO"})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
