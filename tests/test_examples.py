"""The examples that are programs do what they say."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import httpx

ROOT = Path(__file__).parents[1]


def test_the_plugin_host_survives_its_plugins():
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "examples.plugins.host"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    lines = [re.sub(r"process \d+", "process N", line) for line in run.stdout.splitlines()]
    died = "the session is over: the child process N (crash) ended with exit code 3"
    assert sorted(lines[:-2]) == [
        "crash failed: " + died,
        "crash: 10%",
        "hang failed: no answer within 1 s",
        "hang: 10%",
        "shout: 50%",
        "shout: HELLO!",
    ]
    assert lines[-2:] == ["shout: 50%", "shout: STILL HERE!"]
    # The library warns that a handler did not hear its Cancel; nobody has anything to add.
    assert "is abandoned" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert run.returncode == 0


def test_the_page_that_scans_is_served_by_one_command():
    run = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "examples.scan", "examples", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    watchdog = Timer(60, run.kill)
    watchdog.start()
    try:
        with run.stdout:
            url = run.stdout.readline().removeprefix("look at ").strip()
            for page, text in (("", "<h1>Scan a folder</h1>"), ("message.js", "export class")):
                assert text in httpx.get(url + page).text
            summary = httpx.get(url + "../../README.md")
            assert summary.status_code == 404
            run.send_signal(signal.SIGINT)
            assert run.wait() == 0
    finally:
        watchdog.cancel()
        run.kill()
        run.wait()
