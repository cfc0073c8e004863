"""The limits of a server: places for sessions, unfinished handshakes, the pace of connections."""

from __future__ import annotations

import math

import pytest
import trio
from helpers.raw_peer import HELLO, RawPeer, open_raw_peer, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Overloaded, Refused, ServerLimits
from trio_rpc.channels import open_channel
from trio_rpc.channels.clients import Clients, address_of
from trio_rpc.session import session_places
from trio_rpc.session.session_places import SessionPlaces
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m

TCP = "tcp://127.0.0.1:0"


class Clock:
    @trio_rpc.method
    def now(self) -> float:
        return 12.5


@pytest.fixture
async def start(nursery):
    """Return a function that starts a server with the limits that it is given."""
    servers = []

    async def run(url, limits, task_status, **options):
        async with trio_rpc.open_server(Clock(), url, server_limits=limits, **options) as server:
            task_status.started(server)
            await trio.sleep_forever()

    async def start(url=TCP, *, options=None, **limits):
        def begin(*, task_status):
            return run(url, ServerLimits(**limits), task_status, **(options or {}))

        servers.append(await nursery.start(begin))
        return servers[-1]

    with trio.fail_after(60):
        yield start
    nursery.cancel_scope.cancel()


async def refusal(url):
    with pytest.raises(Refused) as caught:
        async with trio_rpc.connect(url):
            pass
    return caught.value


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
async def test_a_full_server_refuses_with_the_reason_and_the_time_of_another_try(start, scheme):
    server = await start(f"{scheme}://127.0.0.1:0", max_sessions=2, retry_after=3.5)
    [url] = server.urls
    async with trio_rpc.connect(url) as first, trio_rpc.connect(url) as session:
        for one in (first, session):  # then the handshake has also ended at the server
            assert await one.call("now") == 12.5
        refused = await refusal(url)
        assert "the server has 2 sessions (max_sessions)" in str(refused)
        assert (refused.retry_after, refused.fate) == (3.5, Fate.NOT_STARTED)
        assert await session.call("now") == 12.5
        assert (server.statistics().sessions, server.statistics().sessions_refused) == (2, 1)
    while server.sessions:
        await trio.lowlevel.checkpoint()
    async with trio_rpc.connect(url) as session:
        assert await session.call("now") == 12.5


async def test_a_place_is_free_again_however_its_session_ended(start):
    server = await start(max_sessions=1)
    [url] = server.urls
    for _ in range(3):
        async with open_channel(url) as channel:
            await open_raw_peer(channel, trio_rpc.DEFAULT_LIMITS)
            assert (await refusal(url)).retry_after == 1.0
            await channel.aclose()
        while server.statistics().sessions:
            await trio.lowlevel.checkpoint()


async def test_one_address_has_its_own_bound(start):
    server = await start("tcp://localhost:0", max_sessions_per_address=1)
    urls = [url.replace("localhost", "127.0.0.1") for url in server.urls if "::" not in url]
    async with trio_rpc.connect(urls[0]) as session:
        refused = await refusal(urls[0])
        assert "this address has 1 sessions (max_sessions_per_address)" in str(refused)
        assert refused.retry_after == 1.0
        assert await session.call("now") == 12.5


async def test_clients_of_a_unix_socket_have_no_address(start, tmp_path):
    server = await start(f"unix://{tmp_path}/socket", max_sessions_per_address=1)
    [url] = server.urls
    async with trio_rpc.connect(url), trio_rpc.connect(url) as session:
        assert await session.call("now") == 12.5


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
async def test_an_address_is_a_host_or_a_network_of_64_bits(host, address):
    assert address_of(host) == address


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
async def test_silent_clients_do_not_keep_others_out(start, scheme):
    """Ten times as many as there may be unfinished handshakes, and then a client that calls."""
    server = await start(f"{scheme}://127.0.0.1:0", max_handshakes=5)
    [url] = server.urls
    address = url.rpartition(":")[2]
    silent = [await trio.open_tcp_stream("127.0.0.1", int(address)) for _ in range(50)]
    while server.statistics().handshakes_given_up < 45:
        await trio.lowlevel.checkpoint()
    async with trio_rpc.connect(url) as session:
        assert await session.call("now") == 12.5
        assert server.statistics().opening <= 5
    for stream in silent:
        await stream.aclose()


@pytest.mark.parametrize("says", ["nothing", "Hello"])
async def test_a_session_that_does_not_open_gives_its_place_to_a_newer_client(
    start, says, monkeypatch
):
    monkeypatch.setattr(session_places, "HANDSHAKE", 0.0)
    server = await start(max_sessions=1)
    [url] = server.urls
    async with open_channel(url) as channel:
        peer = RawPeer(channel)
        if says == "Hello":
            peer.protocol.hello()
            await channel.send(peer.protocol.next_packet())
        while not server.statistics().opening:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        async with trio_rpc.connect(url) as session:
            assert await session.call("now") == 12.5
            goodbye = await peer.read(m.Goodbye)
            assert goodbye.code == "overloaded"
            assert "newer clients needed its place" in goodbye.message
        assert server.statistics().handshakes_given_up == 1
        assert server.statistics().sessions_refused == 0


async def test_authenticate_may_refuse_for_now(start):
    async def check(session, credentials):
        raise Refused("too many of yours", retry_after=60)

    server = await start(options={"authenticate": check})
    refused = await refusal(server.urls[0])
    assert "too many of yours" in str(refused)
    assert refused.retry_after == 1.0  # the Hello had left before


async def test_a_permanent_refusal_has_no_time(start):
    async def check(session, credentials):
        raise Refused("unknown token")

    server = await start(options={"authenticate": check})
    assert (await refusal(server.urls[0])).retry_after is None


async def test_connections_are_accepted_at_a_pace(autojump_clock):
    """The server accepts as many connections as the rate at once, then one after the other."""
    clients = Clients(100, 10.0)
    began = trio.current_time()
    times = []
    for _ in range(30):
        await clients.pace()
        times.append(round(trio.current_time() - began, 6))
    assert times[:11] == [0.0] * 10 + [0.1]
    assert times[-1] == 2.0
    await trio.sleep(60)  # unused places do not add up beyond one second's
    for _ in range(10):
        await clients.pace()
    now = trio.current_time()
    await clients.pace()
    assert trio.current_time() - now == pytest.approx(0.1)


async def test_without_a_rate_nothing_waits(autojump_clock):
    clients = Clients(100, math.inf)
    with trio.testing.assert_no_checkpoints():
        await clients.pace()


async def test_a_session_that_has_just_begun_to_open_keeps_its_place(start):
    """To its client it may be open already."""
    server = await start(max_sessions=1)
    async with open_channel(server.urls[0]) as channel:
        while not server.statistics().opening:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert "max_sessions)" in str(await refusal(server.urls[0]))
        peer = await open_raw_peer(channel, trio_rpc.DEFAULT_LIMITS)
        peer.protocol.request("now", [])
        await channel.send(peer.protocol.next_packet())
        assert (await peer.read(m.Reply)).result == 12.5


async def test_a_place_that_was_given_up_is_counted_once(autojump_clock):
    clients = Clients(10, math.inf)
    places = SessionPlaces(ServerLimits(max_sessions=2, max_sessions_per_address=2), clients)
    gone = []
    one, two, three = (
        clients.add(name, "192.0.2.1" if name == "three" else name, lambda: gone.append(1))
        for name in ("one", "two", "three")
    )
    assert places.take(one) is None
    assert places.take(two) is None
    places.opened(two)
    await trio.sleep(1)
    assert places.take(three) is None  # one gives up
    assert (len(gone), len(clients)) == (1, 1)
    places.leave(one)
    places.opened(three)
    assert "max_sessions)" in str(places.take(one))
    places.leave(three)
    assert places.take(one) is None


@pytest.mark.parametrize("name", list(ServerLimits.__dataclass_fields__))
async def test_bad_limits_are_refused(name):
    with pytest.raises(ValueError, match=rf"ServerLimits\.{name} must be positive"):
        ServerLimits(**{name: 0})
    assert repr(ServerLimits(**{name: 7})) == f"ServerLimits({name}=7)"


@pytest.mark.parametrize("sent", [None, "soon", -1, math.nan, math.inf, 10**9, True])
async def test_a_hello_without_a_usable_time_means_one_second(sent):
    ours, theirs = memory_channel_pair()
    peer = RawPeer(theirs)
    peer.send(m.Hello(1, {**HELLO.info, "retry_after": sent}), m.Goodbye("overloaded", "full"))
    with pytest.raises(Refused, match="full") as caught:
        async with trio_rpc.open_session(ours):
            pass
    assert caught.value.retry_after == 1.0


@pytest.mark.parametrize("delay", [2.5, 3, 0, None])
async def test_a_refused_call_says_when_to_try_again(session_pair, delay):
    async def refuse(call, proceed):
        raise Overloaded("too many of yours", retry_after=delay)

    pair = session_pair(None, Clock(), options_b={"filters": [refuse]})
    async with pair as (session, _):
        with pytest.raises(Overloaded, match="too many of yours") as caught:
            await session.call("now")
    assert (caught.value.retry_after, caught.value.fate) == (delay, Fate.NOT_STARTED)


@pytest.mark.parametrize("sent", ["soon", -1, math.nan, True, [1]])
async def test_a_refused_call_ignores_an_unusable_time(sent):
    async with session_with_raw_peer() as (session, peer):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call():
                with pytest.raises(Overloaded, match="full") as caught:
                    await session.call("now")
                assert caught.value.retry_after is None

            request = await peer.read(m.Request)
            error = {"code": "overloaded", "message": "full", "retry_after": sent}
            peer.send(m.ReplyErr(request.id, error))
