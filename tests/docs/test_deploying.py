"""The files of docs/how-to/deploy.md: each program accepts its own, and they work."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys

import httpx
import pytest
import trio
import trustme
from helpers.cli_tools import COMMAND
from helpers.pages import ROOT
from helpers.programs import Copy, transcripts

import trio_rpc
from trio_rpc.gateway import Message

PAGE = "docs/how-to/deploy.md"


@pytest.fixture
def copy(tmp_path):
    return Copy("examples/deploy", tmp_path)


def needs(program):
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


@contextlib.asynccontextmanager
async def serving(copy, command):
    """Run a ``trio-rpc`` command during the block, and drain it afterwards."""
    words = [copy.here(word) for word in command.split()]
    assert words[0].endswith("trio-rpc")
    async with copy.running(*COMMAND, *words[1:]) as server:
        for _ in range(words.count("--listen")):
            assert (await server.line()).startswith("listening at ")
        yield server
        if server.process.returncode is None:
            await drain(server)


async def drain(server):
    server.process.send_signal(signal.SIGTERM)
    assert (await server.line()).startswith("SIGTERM: draining ")
    assert await server.line() == "stopped"
    assert await server.process.wait() == 0


async def until_connected(url, **options):
    """Connect and call until a server that is starting answers; return the result."""
    while True:
        try:
            async with trio_rpc.connect(url, **options) as session:
                return await session.call("shop.buy", "tea")
        except (OSError, trio_rpc.SessionBroken):
            await trio.sleep(0.05)


def text_of(copy, name):
    return (copy.folder / name).read_text("utf-8")


async def test_the_systemd_unit_is_valid_and_its_command_serves(copy):
    analyze = needs("systemd-analyze")
    unit = text_of(copy, "shop.service")
    [command] = re.findall(r"^ExecStart=/opt/shop/\.venv/bin/(.*)$", unit, re.MULTILINE)
    here = copy.folder / "here.service"
    here.write_text(unit.replace("/opt/shop/.venv/bin/trio-rpc", sys.executable))
    checked = await trio.to_thread.run_sync(copy.run, analyze, "verify", str(here))
    assert (checked.returncode, checked.stderr) == (0, "")
    async with serving(copy, command):
        assert "one tea" in await until_connected(copy.here("tcp://127.0.0.1:5000"))
    [grace] = re.findall(r"--grace (\d+)", command)
    [patience] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(grace) < int(patience)


async def test_the_files_and_the_command_of_the_image_work(copy):
    """Run without a container: the files to copy exist, and the command serves."""
    image = (ROOT / "examples" / "deploy" / "Dockerfile").read_text("utf-8")
    copied = re.findall(r"^COPY (\S+) ", image, re.MULTILINE)
    assert [path for path in copied if not (ROOT / path).exists()] == []
    [command] = re.findall(r"^CMD \[(.*)\]$", image, re.MULTILINE)
    async with serving(copy, command.replace('"', "").replace(",", "")):
        assert "one tea" in await until_connected(copy.here("tcp://127.0.0.1:5000"))


NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""


async def test_nginx_serves_tls_and_websockets(copy):
    nginx = needs("nginx")
    port = copy.ports["5000"]
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1", "example.org")
    certificate.private_key_and_cert_chain_pem.write_to_path(copy.folder / "server.pem")
    site = text_of(copy, "nginx.conf")
    commands = re.findall(r"# (trio-rpc serve .*)$", site, re.MULTILINE)
    assert len(commands) == 2
    site = site.replace("listen 443", f"listen 127.0.0.1:{port}")
    site = re.sub(r"/etc/ssl/example.org.(pem|key)", str(copy.folder / "server.pem"), site)
    (copy.folder / "all.conf").write_text(NGINX.format(folder=copy.folder, site=site))
    trust = ssl.create_default_context()
    ca.configure_trust(trust)
    async with (
        serving(copy, commands[0]),
        serving(copy, commands[1] + " --allow-host 127.0.0.1"),
        copy.running(nginx, "-c", str(copy.folder / "all.conf"), "-e", "stderr"),
    ):
        bought = await until_connected(f"wss://127.0.0.1:{port}/rpc", ssl_context=trust)
        assert bought.startswith("one tea")
        await through_the_gateway(f"https://127.0.0.1:{port}", trust)
        message = Message("127.0.0.1", int(port), secure=True, ssl_context=trust)
        async with message.connect():
            assert "one tea" in await message.post("shop.buy", {"item": "tea"})


async def through_the_gateway(url, trust):
    """Call with the site's host name, with its own Origin and with a foreign one."""
    async with httpx.AsyncClient(verify=trust, base_url=url) as http:
        for origin, status in (("https://example.org", 200), ("https://evil.example", 403)):
            headers = {"Host": "example.org", "Origin": origin}
            done = await http.post("/api/shop.buy", json={"item": "tea"}, headers=headers)
            assert done.status_code == status


async def test_clients_behind_haproxy_move_from_a_draining_server(copy):
    haproxy = needs("haproxy")
    served = [each.command for each in transcripts(PAGE) if " tcp://127.0.0.1:500" in each.command]
    url = copy.here("tcp://127.0.0.1:5000")
    processes = []

    async def work(pool):
        for _ in range(20):
            bought = await pool.call("shop.buy", "tea")
            processes.append(int(bought.rpartition(" ")[2]))

    async with (
        serving(copy, served[0]),
        serving(copy, served[1]) as second,
        copy.running(haproxy, "-db", "-f", "haproxy.cfg"),
        contextlib.AsyncExitStack() as stack,
    ):
        await until_connected(url)
        pools = [await stack.enter_async_context(trio_rpc.open_pool(url)) for _ in range(4)]
        for pool in pools:
            await work(pool)
        assert len(set(processes)) == 2
        await drain(second)
        processes.clear()
        for pool in pools:
            await work(pool)
        assert len(set(processes)) == 1
        assert len(processes) == 80


async def test_tls_passes_through_haproxy(copy):
    haproxy = needs("haproxy")
    ca = trustme.CA()
    file = copy.folder / "server.pem"
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    trust = ssl.create_default_context()
    ca.configure_trust(trust)
    served = f"trio-rpc serve shop:services --listen tls://127.0.0.1:5001 --cert {file}"
    url = copy.here("tls://127.0.0.1:5000")
    async with serving(copy, served), copy.running(haproxy, "-db", "-f", "haproxy.cfg"):
        assert "one tea" in await until_connected(url, ssl_context=trust)
        with pytest.raises(ssl.SSLCertVerificationError):
            async with trio_rpc.connect(url):
                raise AssertionError("the certificate must not be trusted")


async def test_a_page_behind_haproxy_stays_with_one_of_two_gateways(copy):
    haproxy = needs("haproxy")
    served = [each.command for each in transcripts(PAGE) if "http://" in each.command]
    port = int(copy.ports["5000"])
    bought = []
    async with (
        serving(copy, served[0]),
        serving(copy, served[1]),
        copy.running(haproxy, "-db", "-f", "haproxy-gateway.cfg"),
    ):
        await until_served(port)
        for _ in range(5):
            message = Message("127.0.0.1", port)
            async with message.connect():
                bought.append(await message.post("shop.buy", {"item": "tea"}))
    assert len(set(bought)) == 1
    assert "one tea" in bought[0]


async def until_served(port):
    """Wait until the balancer knows one of its servers."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await http.get("/healthz")).status_code == 200:
                    return
            await trio.sleep(0.05)


# ── Kubernetes ───────────────────────────────────────────────────────────────────────────────


def manifests():
    yaml = pytest.importorskip("yaml", reason="kubernetes-validate is not installed")
    text = (ROOT / "examples" / "deploy" / "kubernetes.yaml").read_text("utf-8")
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


@pytest.mark.parametrize("kind", ["Service", "Deployment", "PodDisruptionBudget"])
def test_the_manifests_are_valid(kind):
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed"
    )
    manifest = manifests()[kind]
    validate.validate(manifest, validate.latest_version(), strict=True)
    with pytest.raises(validate.ValidationError):
        validate.validate(
            {**manifest, "spec": {"no": "such field"}}, validate.latest_version(), strict=True
        )


def test_the_manifests_fit_each_other_and_the_image():
    found = manifests()
    pod = found["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    for kind in ("Service", "Deployment", "PodDisruptionBudget"):
        selector = found[kind]["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels
    [container] = pod["spec"]["containers"]
    image = (ROOT / "examples" / "deploy" / "Dockerfile").read_text("utf-8")
    port = container["ports"][0]["containerPort"]
    assert f'"tcp://0.0.0.0:{port}"' in image
    assert found["Service"]["spec"]["ports"][0]["port"] == port
    [grace] = re.findall(r'"--grace", "(\d+)"', image)
    assert pod["spec"]["terminationGracePeriodSeconds"] > int(grace)
    assert (
        found["PodDisruptionBudget"]["spec"]["minAvailable"]
        < (found["Deployment"]["spec"]["replicas"])
    )


@pytest.mark.parametrize("probe", ["readinessProbe", "livenessProbe"])
async def test_the_probes_of_kubernetes_work(copy, probe):
    [container] = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    probed = container[probe]
    command = [copy.here(word) for word in probed["exec"]["command"]]
    assert float(command[-1]) < probed["timeoutSeconds"]
    [program, *words] = command
    assert program == "trio-rpc"
    asked = await trio.to_thread.run_sync(copy.run, *COMMAND, *words)
    assert asked.returncode == 3
    async with serving(copy, "trio-rpc serve shop:services --listen tcp://127.0.0.1:5000"):
        asked = await trio.to_thread.run_sync(copy.run, *COMMAND, *words)
        assert (asked.returncode, asked.stdout) == (0, "serving\n")


# ── Docker ───────────────────────────────────────────────────────────────────────────────────


async def test_the_image_is_built_and_serves():
    """Run only where a container engine runs and can get the base image."""
    docker = needs("docker")
    if subprocess.run([docker, "info"], capture_output=True, check=False).returncode:  # noqa: S603, ASYNC221
        pytest.skip("no container engine is running")
    file = "examples/deploy/Dockerfile"
    tag = f"trio-rpc-test-{os.getpid()}"
    build = [docker, "build", "--quiet", "--tag", tag, "--file", file, "."]
    built = await trio.run_process(build, cwd=ROOT, capture_stdout=True, capture_stderr=True)
    run = [docker, "run", "--rm", "--detach", "--publish", "127.0.0.1::5000", tag]
    started = await trio.run_process(run, capture_stdout=True)
    assert built.returncode == 0
    name = started.stdout.decode().strip()
    try:
        port = await trio.run_process([docker, "port", name, "5000"], capture_stdout=True)
        assert "one tea" in await until_connected(f"tcp://{port.stdout.decode().split()[0]}")
    finally:
        await trio.run_process([docker, "stop", name], capture_stdout=True)
        await trio.run_process([docker, "rmi", tag], capture_stdout=True)


def test_the_timeouts_of_the_proxies_are_longer_than_the_keepalive_timeout(copy):
    limits = trio_rpc.DEFAULT_LIMITS
    silence = limits.keepalive_interval * (limits.keepalive_pings + 1)
    files = ("nginx.conf", "haproxy.cfg", "haproxy-gateway.cfg")
    configured = "".join(text_of(copy, name) for name in files)
    seconds = re.findall(
        r"(?:proxy_(?:read|send)_timeout|timeout (?:client|server|tunnel)) (\d+)s", configured
    )
    assert len(seconds) == 7
    assert all(int(each) > silence for each in seconds)
    assert f"{silence:g} s by default" in (ROOT / PAGE).read_text("utf-8")
