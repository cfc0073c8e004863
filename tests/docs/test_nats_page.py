"""The commands and the program of the page about NATS work as the page shows them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.nats_server import server_program, shared_server
from helpers.pages import ROOT
from helpers.programs import transcripts

PAGE = "docs/how-to/nats.md"
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.slow


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def run(command, **options):
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(  # noqa: S603 - our own page
        ["bash", "-c", command],  # noqa: S607
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def begin(command):
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.Popen(  # noqa: S603 - our own page
        ["bash", "-c", command],  # noqa: S607
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


class NotInTime(Exception):
    """The cluster did not serve in time."""


def test_a_cluster_of_three_starts_with_the_pages_commands_and_serves():
    server_program()
    try:
        start_a_cluster()
    except NotInTime:  # another program may have taken one of the free ports
        start_a_cluster()


def start_a_cluster():
    """Start three servers and two instances on free ports, and call one. Raises NotInTime."""
    commands = [each.command for each in transcripts(PAGE)]
    start = next(each for each in commands if each.startswith("for n in"))
    clients, routes = free_ports(3), free_ports(3)

    def here(command):
        """Replace the ports of the page by free ones."""
        for number, (port, route) in enumerate(zip(clients, routes, strict=True), start=1):
            command = command.replace(f"422{number}", str(port)).replace(f"622{number}", str(route))
        return command

    each = re.search(r"do (.*?) & done", start)[1]
    whole = " & ".join(here(each.replace("$n", str(number))) for number in (1, 2, 3)) + " & wait"
    processes = [begin(whole)]
    try:
        deadline = time.monotonic() + 30
        serve = here(next(each for each in commands if each.startswith("trio-rpc serve")))
        for _ in range(2):
            while True:
                server = begin(serve)
                line = server.stdout.readline()
                if line.startswith("listening at"):
                    processes.append(server)
                    break
                check_time(deadline)
        ask = here(next(each for each in commands if each.startswith("trio-rpc instances")))
        while len(run(ask).stdout.split()) != 2:
            check_time(deadline)
        call = here(next(each for each in commands if each.startswith("trio-rpc call")))
        called = run(call)
        assert float(called.stdout) > 0, called.stderr
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()


def check_time(deadline):
    """Wait for a moment, or raise NotInTime."""
    if time.monotonic() > deadline:
        raise NotInTime
    time.sleep(0.2)


def test_nats_topic_py_prints_the_output_on_the_page():
    [shown] = [each for each in transcripts(PAGE) if each.command == "python nats_topic.py"]
    place = ROOT / "examples/how_to/nats_topic.py"
    printed = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(place), shared_server().url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert printed.stdout.splitlines() == list(shown.output.splitlines())
