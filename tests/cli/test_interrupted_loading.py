"""Ctrl-C while the command line is still being loaded: exit code 130, and nothing is printed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from trio_rpc.cli.exits import Exit

ROOT = Path(__file__).parents[2]
PATIENCE = 60

BLOCKS = """
import os, signal, sys
os.write(1, b"loading")
{before}
signal.raise_signal(signal.SIGINT)
os.write(1, b", loaded")
os._exit(0)
"""
"""A module that raises SIGINT while it is imported."""

SCRIPT = "import sys\nfrom trio_rpc.cli import main\nsys.exit(main())\n"
"""The script that an installer writes."""

FIRST_AND_LAST = ("trio", "msgspec", "cyclopts")
"""Modules imported early, in the middle, and only by the command line."""


async def load(
    tmp_path: Path, command: list[str], module: str, before: str = ""
) -> tuple[int, bytes, bytes]:
    """Run Python with a module that raises SIGINT, and return exit code, output and errors."""
    (tmp_path / f"{module}.py").write_text(BLOCKS.format(before=before))
    paths = [str(tmp_path), str(ROOT)]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def script(tmp_path):
    place = tmp_path / "bin" / "trio-rpc"
    place.parent.mkdir()
    place.write_text(SCRIPT)
    return str(place)


@pytest.mark.parametrize("module", FIRST_AND_LAST)
async def test_ctrl_c_while_the_script_is_loading_ends_it_silently(tmp_path, script, module):
    assert await load(tmp_path, [script, "ping"], module) == (Exit.INTERRUPTED, b"loading", b"")


@pytest.mark.parametrize(
    ("options", "module"),
    [
        (["-m", "trio_rpc"], "trio"),
        (["-mtrio_rpc"], "msgspec"),
        (["-W", "error", "-sm", "trio_rpc"], "cyclopts"),
    ],
)
async def test_ctrl_c_while_python_m_is_loading_ends_it_silently(tmp_path, options, module):
    ended = await load(tmp_path, [*options, "ping"], module)
    assert ended == (Exit.INTERRUPTED, b"loading", b"")


@pytest.mark.parametrize("command", [["-c", "import trio_rpc"], ["-m", "plugin", "trio_rpc"]])
async def test_ctrl_c_while_a_program_imports_the_package_is_raised(tmp_path, command):
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "__init__.py").write_text("import trio_rpc")
    (tmp_path / "plugin" / "__main__.py").touch()
    code, out, errors = await load(tmp_path, command, "msgspec")
    assert (code, out) == (-signal.SIGINT, b"loading")
    assert b"KeyboardInterrupt" in errors


async def test_a_command_that_ignores_interrupts_goes_on(tmp_path, script):
    ignoring = "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    ignoring += "sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"
    command = ["-c", ignoring, script, "ping"]
    assert await load(tmp_path, command, "msgspec") == (0, b"loading, loaded", b"")
