"""The example of worker processes loses no job, although it kills a worker."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from helpers.pages import ROOT


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it kills a process with a signal")
def test_the_workers_finish_all_jobs_although_one_is_killed():
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "examples.workers"]
    done = subprocess.run(  # noqa: S603 - our own example
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=90
    )
    assert re.search(r"jobs that it was doing: [1-9]", done.stdout)
    assert done.stdout.splitlines()[-1] == "24 of 24 jobs done, 65234 primes"
