"""A release with a missing, foreign or large file is refused, with its name."""

from __future__ import annotations

import io
import tarfile
import zipfile

import check_files
import pytest

PACKAGE = {"trio_rpc/__init__.py", "trio_rpc/py.typed"}
SOURCE = PACKAGE | {"README.md"}
WHEEL = PACKAGE | {f"trio_rpc-1.0.dist-info/{name}" for name in check_files.BESIDE_THE_PACKAGE}
SDIST = SOURCE | {"PKG-INFO"}


def check(tmp_path, wheel=WHEEL, sdist=SDIST):
    """Check a release of these files."""
    source, dist = tmp_path / "source", tmp_path / "dist"
    dist.mkdir()
    for name in SOURCE:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    with zipfile.ZipFile(dist / "trio_rpc-1.0-py3-none-any.whl", "w") as archive:
        for name in wheel:
            archive.writestr(name, b"")
    with tarfile.open(dist / "trio_rpc-1.0.tar.gz", "w:gz") as archive:
        for name in sdist:
            archive.addfile(tarfile.TarInfo(f"trio_rpc-1.0/{name}"), io.BytesIO())
    check_files.main(dist, source)


def test_a_complete_release_passes(tmp_path, capsys):
    check(tmp_path)
    assert capsys.readouterr().out == "the wheel has its 7 files\nthe sdist has its 4 files\n"


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"wheel": WHEEL - {"trio_rpc/py.typed"}}, "the wheel lacks trio_rpc/py.typed"),
        ({"wheel": WHEEL | {"tests/x.py"}}, "the wheel also has tests/x.py"),
        ({"sdist": SDIST - {"README.md"}}, "the sdist lacks README.md"),
        ({"sdist": SDIST | {"uv.lock"}}, "the sdist also has uv.lock"),
    ],
)
def test_another_file_is_named(tmp_path, files, complaint):
    with pytest.raises(SystemExit, match=f"^{complaint}$"):
        check(tmp_path, **files)


@pytest.mark.parametrize("bound", ["LARGEST_WHEEL", "LARGEST_SDIST"])
def test_a_file_that_is_too_large_is_named(tmp_path, monkeypatch, bound):
    monkeypatch.setattr(check_files, bound, 10)
    with pytest.raises(SystemExit, match=r"^trio_rpc-1\.0.* bytes, more than 10"):
        check(tmp_path)
