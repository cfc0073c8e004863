"""Without its extra, importing the gateway says what to install."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
import trio


async def _import_without(missing: str) -> str:
    code = f"import sys; sys.modules[{missing!r}] = None; import trio_rpc.gateway"
    command = [sys.executable, "-c", code]
    done = await trio.run_process(command, capture_stderr=True, check=False)
    assert done.returncode == 1
    return done.stderr.decode().splitlines()[-1]


@pytest.mark.parametrize("missing", ["httpx", "hypercorn", "starlette"])
async def test_an_import_without_the_extra_says_what_to_install(missing):
    text = (
        f'trio_rpc.gateway needs {missing}, from the extra "gateway": '
        "in a clone of trio_rpc, run pip install '.[gateway]'"
    )
    assert await _import_without(missing) == f"ModuleNotFoundError: {text}"


async def test_an_import_that_fails_for_another_reason_raises_that_error():
    assert "msgpack" in (text := await _import_without("msgpack"))
    assert "the extra" not in text


@pytest.mark.parametrize("bound", ["h11>=0.16", "hypercorn>=0.18"])
def test_versions_with_known_vulnerabilities_are_not_accepted(bound):
    """h11 before 0.16 accepts malformed chunks (CVE-2025-43859)."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert bound in project["project"]["optional-dependencies"]["gateway"]
