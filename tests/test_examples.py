"""The example of a page that scans a folder runs as its README says."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import httpx

ROOT = Path(__file__).parents[1]


def test_one_command_serves_the_scan_page():
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
