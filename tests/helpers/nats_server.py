"""Real NATS servers on loopback, for tests: alone, and in clusters."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import trio

from trio_rpc.nats import NatsOptions, open_nats
from trio_rpc.wire.limits import DEFAULT_LIMITS

PATIENT = NatsOptions(silence=3_600, ping_interval=1_200, linger=600, outage=3_600)
"""For tests whose clock jumps while the server is at work."""


MISSING = "nats-server is missing: it is in the dependency group test"


def find_program():
    """Return the path of nats-server, or None."""
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.exists() else shutil.which("nats-server")


def server_program():
    """Return the path of nats-server, or skip the test with the reason."""
    found = find_program()
    if found is None:
        pytest.skip(MISSING)
    return found


class NatsServer:
    """A server process. ``url`` is known once it runs.

    Args:
        place: a folder for its files.
        config: lines of its configuration.
        name: its name.
        port: the port for clients; 0 means any free one.
    """

    def __init__(self, place, *, config="", name="one", port=0, cluster_port=None, routes=()):
        self.place = place / name
        self.place.mkdir(exist_ok=True)
        self.name = name
        self.config = config
        self.port = port
        self.cluster_port = cluster_port
        self.routes = routes
        self.process = None

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    def write_config(self):
        text = f'server_name: "{self.name}"\nlisten: "127.0.0.1:{self.port or -1}"\n'
        text += f'ports_file_dir: "{self.place}"\nlogfile: "{self.place}/log"\n'
        if self.cluster_port is not None:
            routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in self.routes)
            text += f'cluster {{ name: test, listen: "127.0.0.1:{self.cluster_port or -1}"\n'
            text += f"  routes: [{routes}] }}\n"
        path = self.place / "config"
        path.write_text(text + self.config)
        return path

    def begin(self):
        """Start the process; its ports are not known yet."""
        for old in self.place.glob("*.ports"):
            old.unlink()
        self.process = subprocess.Popen(  # noqa: S603 - our own arguments
            [server_program(), "-c", str(self.write_config())],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    async def start(self):
        """Start, or start again at the same port, and wait until clients can connect."""
        self.begin()
        with trio.fail_after(20):
            while (ports := self.ports()) is None:  # noqa: ASYNC110 - another process
                await trio.sleep(0.01)
        self.learn(ports)
        return self

    def learn(self, ports):
        self.port = int(ports["nats"][0].rpartition(":")[2])
        if ports.get("cluster"):
            self.cluster_port = int(ports["cluster"][0].rpartition(":")[2])

    def ports(self):
        """Return the ports that the process listens at, or None if it has not written them yet."""
        for path in self.place.glob("*.ports"):
            with contextlib.suppress(ValueError):
                return json.loads(path.read_text())
        if self.process.poll() is not None:
            raise AssertionError((self.place / "log").read_text())
        return None

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def lame_duck(self):
        self.signal(signal.SIGUSR2)

    def memory(self):
        """Return the resident bytes of the process."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * 4096


@contextlib.asynccontextmanager
async def nats_server(place, **options):
    """Run one server for a block."""
    server = NatsServer(place, **options)
    try:
        yield await server.start()
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def nats_cluster(place, count=3, **options):
    """Run a cluster for a block."""
    servers = []
    try:
        for number in range(count):
            routes = [each.cluster_port for each in servers]
            name = f"node{number}"
            server = NatsServer(place, name=name, cluster_port=0, routes=routes, **options)
            servers.append(server)
            await server.start()
        yield servers
    finally:
        for server in servers:
            server.kill()


@functools.cache
def shared_server():
    """Return a server for all tests of this process, which ends with the process.

    It is started without Trio, since a test may have a clock that jumps.
    """
    place = tempfile.TemporaryDirectory(prefix="nats-")
    server = NatsServer(Path(place.name))
    server.begin()
    atexit.register(place.cleanup)
    atexit.register(server.kill)
    deadline = time.monotonic() + 20
    while (ports := server.ports()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.learn(ports)
    return server


@contextlib.asynccontextmanager
async def open_nats_pair(*limits):
    """Open both ends of a channel over the shared server for the block."""
    async with open_nats_ends(*limits) as (_, channels):
        yield channels


@contextlib.asynccontextmanager
async def open_nats_ends(*limits):
    """Open two connections to the shared server, and both ends of a channel over it.

    Yields the connections and the channels.
    """
    ours, theirs = limits or (DEFAULT_LIMITS, DEFAULT_LIMITS)
    url, service = shared_server().url, secrets.token_hex(8)
    async with (
        open_nats(url, options=PATIENT) as client,
        open_nats(url, options=PATIENT) as server,
        await server.listen(service, limits=theirs) as listener,
        client.open_channel(service, limits=ours) as opened,
    ):
        connection = await listener.accept()
        async with connection.prepared() as accepted:
            yield (client, server), (opened, accepted)
