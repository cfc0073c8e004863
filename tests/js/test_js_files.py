"""The files of session.js: short modules, small as it is served, and served as it is written."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import httpx
import pytest
from helpers.gateway_tools import hosting

import trio_rpc
from trio_rpc.gateway import Gateway

FOLDER = Path(trio_rpc.__file__).parent / "js"
MODULES = sorted(FOLDER.glob("*.js"))
SERVED = FOLDER / "served"
LONGEST_MODULE = 600
LONGEST_LINE = 130
LARGEST = 20 * 1024
"""Bytes of session.js as a server compresses it."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_and_lines_are_short(path):
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= LONGEST_MODULE
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


def test_the_served_files_are_made_of_these_modules():
    sources = b"".join(path.read_bytes() for path in MODULES)
    made_of = hashlib.sha256(sources).hexdigest()[:16]
    for name in ("session.js", "resumable.js"):
        text = (SERVED / name).read_text("utf-8")
        assert text.startswith(f"/* trio_rpc, MIT; {made_of} */"), "run .ci/build-javascript"


def test_session_js_is_small():
    assert len(gzip.compress((SERVED / "session.js").read_bytes(), 9)) <= LARGEST


def test_the_types_name_everything_that_the_module_exports():
    entry = (FOLDER / "session.js").read_text("utf-8")
    listed = {
        name.strip()
        for names in re.findall(r"export \{([^}]*)\}", entry)
        for name in names.split(",")
    }
    listed |= set(re.findall(r"export async function (\w+)", entry))
    errors = (FOLDER / "errors.js").read_text("utf-8")
    listed |= set(re.findall(r"export (?:class|const) (\w+)", errors))
    types = (FOLDER / "session.d.ts").read_text("utf-8")
    declared = set(re.findall(r"export (?:class|const|function) (\w+)", types))
    assert listed - {"", "Timer", "within"} == declared


def test_the_package_has_the_version_and_the_files():
    package = json.loads((FOLDER / "package.json").read_text("utf-8"))
    assert package["version"] == re.match(r"\d+\.\d+\.\d+", trio_rpc.__version__).group()
    assert (FOLDER / "LICENSE").read_text() == (FOLDER.parents[1] / "LICENSE").read_text()


@pytest.mark.parametrize("name", ["session.js", "resumable.js", "session.d.ts"])
async def test_a_gateway_serves_the_files(name):
    path = SERVED / name if name.endswith(".js") else FOLDER / name
    async with hosting(Gateway({})) as url, httpx.AsyncClient() as client:
        response = await client.get(f"{url}/{name}")
    assert (response.status_code, response.content) == (200, path.read_bytes())
    kind = "text/javascript" if name.endswith(".js") else "text/plain"
    assert response.headers["content-type"].startswith(kind)
