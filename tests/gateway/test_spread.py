"""A gateway of several instances: each serves the clients of all, over links in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from helpers.asgi_peers import HttpPeer
from helpers.gateway_instances import Page, open_instances, until

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits, open_spread, outlives


class Work:
    """Counts the calls that run at one instance."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.running = 0
        self.ended = 0

    @trio_rpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @trio_rpc.method
    async def count(
        self, to: int, found: Callable[[int, str], Awaitable[None]], size: int = 0
    ) -> int:
        for number in range(to):
            await found(number, "x" * size)
            await trio.sleep(0.01)
        return to

    @trio_rpc.method
    async def text(self, size: int) -> str:
        return "ä" * size

    @trio_rpc.method
    @outlives
    async def build(self, size: int) -> str:
        await self.wait()
        return "x" * size

    @trio_rpc.method
    async def wait(self) -> str:
        self.running += 1
        try:
            await self.go.wait()
        finally:
            self.running -= 1
            self.ended += 1
        return "done"


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0)


async def test_a_post_at_another_instance_is_answered_by_the_home(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        assert page.id.startswith("a~")
        answer = await page.post(b, "add", {"a": 1, "b": 2})
        assert answer.status == 200
        assert answer.answer["request_uuid"].startswith("a~")
        await until(lambda: len(page.socket.messages) > 1)
        finish = page.socket.messages[1]
        assert (finish["type"], finish["payload"]) == ("finish", 3)
        assert finish["request_uuid"] == answer.answer["request_uuid"]
        page.socket.disconnect()


async def test_a_websocket_that_comes_back_at_another_instance_gets_the_rest(
    autojump_clock, nursery
):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        started = await page.post(a, "wait")
        page.socket.disconnect()
        first = await page.resume(b)
        assert first == {"type": "resumed", "uuid": page.id}
        assert a.app.clients == 1
        assert b.app.clients == 0
        a.service.go.set()
        await until(lambda: len(page.socket.messages) > 1)
        assert page.socket.messages[1]["payload"] == "done"
        assert page.socket.messages[1]["request_uuid"] == started.answer["request_uuid"]
        page.socket.disconnect()


async def test_a_page_that_says_bye_at_another_instance_ends_its_work(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.socket.disconnect()
        await page.resume(b)
        await page.post(b, "wait")
        await until(lambda: a.service.running)
        began = trio.current_time()
        page.socket.says("bye")
        page.socket.disconnect()
        await until(lambda: a.service.ended)
        assert trio.current_time() - began < 1
        assert a.app.clients == 0


async def test_the_work_of_a_page_that_left_another_instance_ends_after_grace(
    autojump_clock, nursery
):
    async with open_instances(Work, limits=GatewayLimits(grace=20)) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.socket.disconnect()
        await page.resume(b)
        await page.post(b, "wait")
        began = trio.current_time()
        page.socket.disconnect()
        await until(lambda: a.service.ended)
        assert trio.current_time() - began == pytest.approx(20, abs=0.1)


async def test_the_home_refuses_a_wrong_token(autojump_clock, nursery):
    wrong = {"Trio-Rpc-Token": "wrong"}
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        answer = await page.post(b, "wait", **wrong)
        assert answer.status == 403
        assert "does not belong" in answer.answer["error"]
        page.socket.disconnect()
        assert (await page.resume(b, token=wrong["Trio-Rpc-Token"]))["type"] == "lost"
        await until(lambda: page.socket.close_code)
        assert page.socket.close_code == 4404
        assert a.app.clients == 1
        assert not a.service.running


async def test_the_clients_of_a_dead_home_are_told_that_it_is_lost(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page, other = Page(nursery), Page(nursery)
        await page.connect(a)
        await other.connect(a)
        other.socket.disconnect()
        await other.resume(b)
        began = trio.current_time()
        await a.die()
        await until(lambda: other.socket.close_code)
        assert other.socket.close_code == 1013
        assert (await other.resume(b))["type"] == "lost"
        assert trio.current_time() - began == pytest.approx(5, abs=0.2)
        answer = await page.post(b, "wait")
        assert answer.status == 410
        assert trio.current_time() - began == pytest.approx(7, abs=0.3)


@pytest.mark.parametrize(
    "name",
    ["c", "A", "", "..", "a b", "a*", ">", "a\r\nPUB x", "__class__", "x" * 5000, "é", "b/a"],
)
async def test_a_name_that_a_stranger_has_made_up_leads_nowhere(autojump_clock, nursery, name):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        attempts = a.link.attempts + b.link.attempts
        page.hello["uuid"] = f"{name}~{page.id.partition('~')[2]}"
        page.socket.disconnect()
        began = trio.current_time()
        assert (await page.resume(b))["type"] == "lost"
        answer = await page.post(b, "wait")
        assert answer.status in (404, 410)
        assert trio.current_time() - began < 0.1  # nobody waits for it
        assert a.link.attempts + b.link.attempts == attempts
        assert not a.service.running
        assert not b.service.running


async def test_an_id_of_an_earlier_run_of_an_instance_is_gone(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.hello["uuid"] = "a~00000000-0000-4000-8000-000000000000"
        for instance in (a, b):
            answer = await page.post(instance, "wait")
            assert answer.status == 410


# ── faults between the instances ─────────────────────────────────────────────────────────────


async def test_a_lost_link_costs_nothing_but_time(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.socket.disconnect()
        await page.resume(b)
        await page.post(b, "count", {"to": 600})
        got = []
        for _ in range(3):
            await until(lambda: len(page.socket.messages) > 4)
            a.link.links[-1].cut()
            await until(lambda: page.socket.close_code)
            assert page.socket.close_code == 1013
            got += page.socket.messages[1:]
            while (first := await page.resume(b, got[-1]["seq"])) == 1013:
                pass  # the loss of the link is not noticed at once
            assert first["type"] == "resumed"
        await until(lambda: page.socket.messages[-1]["type"] == "finish")
        got += page.socket.messages[1:]
        assert [each["found"][0] for each in got[:-1]] == list(range(600))
        page.socket.disconnect()


async def test_a_frozen_home_is_noticed(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.socket.disconnect()
        await page.resume(b)
        began = trio.current_time()
        for link in a.link.links + b.link.links:
            link.freeze()
        await until(lambda: page.socket.close_code)
        assert page.socket.close_code == 1013
        assert trio.current_time() - began < 12


@pytest.mark.parametrize("key", ["", "the key of this request"])
async def test_a_post_whose_link_is_lost_is_repeated_if_it_has_a_key(autojump_clock, nursery, key):
    asked = []

    async def authenticate(_request):
        asked.append(trio.Event())
        if len(asked) == 3:  # the page's WebSocket, this POST at b, and then at its home
            a.link.links[-1].cut()
            await asked[-1].wait()

    async with open_instances(Work, authenticate=authenticate) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        headers = {"Idempotency-Key": key} if key else {}
        answer = await page.post(b, "wait", **headers)
        assert answer.status == (200 if key else 502)
        assert len(asked) == (4 if key else 3)
        await trio.testing.wait_all_tasks_blocked()
        assert a.service.running == bool(key)


async def test_a_browser_that_hangs_up_cancels_the_far_request(autojump_clock, nursery):
    asked, ended = [], trio.Event()

    async def authenticate(_request):
        asked.append(1)
        if len(asked) == 3:
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

    async with open_instances(Work, authenticate=authenticate) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        peer = HttpPeer(f"/api/wait/{page.id}", {}, {"Trio-Rpc-Token": page.hello["token"]})
        nursery.start_soon(peer.run, b.app)
        await until(lambda: len(asked) == 3)
        peer.hang_up()
        with trio.fail_after(1):
            await ended.wait()
        assert not peer.status
        assert not a.service.running


async def test_the_home_finds_the_identity_and_the_address(autojump_clock, nursery):
    asked = []

    async def authenticate(request):
        asked.append((request.method, request.path, request.address, request.headers["user"]))
        return request.headers["user"]

    class Who:
        @trio_rpc.method
        async def who(self) -> list[str | None]:
            call = trio_rpc.current_call()
            return [call.identity, call.request.address]

    async with open_instances(Who, authenticate=authenticate) as (a, b):
        page = Page(nursery)
        page.headers = [(b"user", b"ann")]
        await page.connect(a)
        asked.clear()
        peer = HttpPeer(
            f"/api/who/{page.id}",
            {},
            {"Trio-Rpc-Token": page.hello["token"], "User": "ann"},
            reads=True,
        )
        peer.scope["client"] = ("192.0.2.7", 4711)
        await peer.run(b.app)
        assert peer.status == 200
        await until(lambda: len(page.socket.messages) > 1)
        assert page.socket.messages[1]["payload"] == ["ann", "192.0.2.7"]
        assert asked == [("POST", f"/api/who/{page.id}", "192.0.2.7", "ann")] * 2


async def test_a_request_that_authenticate_refuses_is_not_carried(autojump_clock, nursery):
    async def authenticate(request):
        if request.method == "POST":
            raise trio_rpc.Refused("no")

    async with open_instances(Work, authenticate=authenticate) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        calls = [each.calls for each in b.spread.instances()]
        answer = await page.post(b, "wait")
        assert answer.status == 401
        assert [each.calls for each in b.spread.instances()] == calls


async def test_an_instance_that_is_not_the_one_in_the_table_answers_nothing(
    autojump_clock, nursery
):
    async with open_instances(Work) as (a, b):
        b.link.services = a.spread.services  # as if the URL of b led to a
        b.link.stop()
        page = Page(nursery)
        await page.connect(b)
        await nursery.start(b.link.serve)
        await until(lambda: a.is_joined)
        answer = await page.post(a, "wait")
        assert answer.status == 503
        page.socket.disconnect()
        assert await page.resume(a) == 1013


# ── bounds ───────────────────────────────────────────────────────────────────────────────────


async def test_a_page_that_does_not_read_holds_one_text_at_its_instance(autojump_clock, nursery):
    limits = GatewayLimits(callbacks_ahead=1000, backlog_messages=50)
    async with open_instances(Work, limits=limits) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.socket.disconnect()
        await page.resume(b)
        page.socket.reads = trio.Event()
        await page.post(b, "count", {"to": 500, "size": 1000})
        await trio.sleep(10)
        assert 40_000 < a.app.unsent < 200_000
        assert b.app.unsent <= limits.frame_bytes + 2000
        held = a.app.unsent
        await trio.sleep(5)
        assert a.app.unsent == held
        seen = 0
        page.socket.reads.set()
        while not page.socket.messages or page.socket.messages[-1]["type"] != "finish":
            await until(lambda: page.socket.messages[-1].get("seq", 0) > seen)  # noqa: B023
            seen = page.socket.messages[-1]["seq"]
            page.socket.acknowledge()
        found = [each["found"][0] for each in page.socket.messages[1:-1]]
        assert found == list(range(500))
        page.socket.disconnect()
        await until(lambda: not b.app.unsent)


async def test_a_message_of_any_size_arrives_whole(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a, "resumable=1")  # it takes no pieces
        page.socket.disconnect()
        await page.resume(b)
        await page.post(b, "text", {"size": 1_000_000})
        await until(lambda: len(page.socket.messages) > 1)
        assert page.socket.messages[1]["payload"] == "ä" * 1_000_000
        page.socket.disconnect()


async def test_carried_websockets_are_bounded(autojump_clock, nursery):
    async with open_instances(Work, limits=GatewayLimits(max_clients=2)) as (a, b):
        pages = [Page(nursery) for _ in range(2)]
        for page in pages:
            await page.connect(a)
            page.socket.disconnect()
            assert (await page.resume(b))["type"] == "resumed"
        assert await pages[0].resume(b) == 1013


async def test_a_message_that_is_too_large_is_not_carried(autojump_clock, nursery):
    async with open_instances(Work, limits=GatewayLimits(max_message=1000)) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.socket.disconnect()
        await page.resume(b)
        page.socket.says("ack", seq=0, more="x" * 1000)
        await until(lambda: page.socket.close_code)
        assert page.socket.close_code == 1009
        assert await page.resume(b, token="x" * 1000) == 1009


async def test_a_body_that_is_too_large_is_not_carried(autojump_clock, nursery):
    async with open_instances(Work, limits=GatewayLimits(max_body=1000)) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        calls = [each.calls for each in b.spread.instances()]
        answer = await page.post(b, "wait", {"x": "y" * 1000})
        assert answer.status == 413
        assert [each.calls for each in b.spread.instances()] == calls


async def test_requests_that_wait_for_an_instance_are_bounded(autojump_clock, nursery):
    async with open_instances(Work, limits=GatewayLimits(max_clients=3)) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        await a.die()
        peers = []
        for _ in range(4):
            peers.append(HttpPeer(f"/api/wait/{page.id}", {}, reads=True))
            nursery.start_soon(peers[-1].run, b.app)
        await until(lambda: all(peer.status for peer in peers))
        assert sorted(peer.status for peer in peers) == [410, 410, 410, 503]


# ── the other ends of a WebSocket ────────────────────────────────────────────────────────────


async def test_the_newest_websocket_of_a_client_wins_wherever_it_is(autojump_clock, nursery):
    async with open_instances(Work, "abc") as (a, b, c):
        page = Page(nursery)
        await page.connect(a)
        old = page.socket
        for instance in (b, c, a):
            await page.resume(instance)
            await until(lambda: old.close_code)  # noqa: B023
            assert old.close_code == 4409
            old = page.socket
        assert a.app.clients == 1
        page.socket.disconnect()


async def test_an_instance_that_ends_sends_the_clients_of_others_away(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.socket.disconnect()
        await page.resume(b)
        await b.stop()
        assert page.socket.close_code == 1001
        assert (await page.resume(a))["type"] == "resumed"
        page.socket.disconnect()


async def test_a_home_that_ends_in_order_closes_websockets_elsewhere(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.socket.disconnect()
        await page.resume(b)
        await a.stop()
        await until(lambda: page.socket.close_code)
        assert page.socket.close_code in (1001, 1013)


# ── results ──────────────────────────────────────────────────────────────────────────────────


def result_of(uuid: str, token: str, method: str = "GET", query: str = "") -> HttpPeer:
    peer = HttpPeer(f"/api/result/{uuid}", None, {"Trio-Rpc-Token": token}, reads=True)
    peer.scope |= {"method": method, "query_string": query.encode()}
    return peer


async def test_a_result_is_collected_waited_for_and_cancelled_at_another_instance(
    autojump_clock, nursery
):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        token = page.hello["token"]
        started = (await page.post(b, "build", {"size": 200_000})).answer["request_uuid"]
        peer = result_of(started, token)
        await peer.run(b.app)
        assert peer.status == 202
        waiting = result_of(started, token, query="wait=20")
        nursery.start_soon(waiting.run, b.app)
        await trio.sleep(10)
        assert not waiting.status
        a.service.go.set()
        await until(lambda: waiting.status)
        assert waiting.status == 200
        await until(lambda: waiting.body[-1:] == b"}")
        assert waiting.answer["payload"] == "x" * 200_000
        assert b.app.unsent == 0
        wrong = result_of(started, "wrong")
        await wrong.run(b.app)
        assert wrong.status == 403

        a.service.go = trio.Event()
        started = (await page.post(b, "build", {"size": 1})).answer["request_uuid"]
        await until(lambda: a.service.running)
        cancelled = result_of(started, token, "DELETE")
        await cancelled.run(b.app)
        await until(lambda: not a.service.running)


# ── the arguments of open_spread ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("home", "links", "error", "text"),
    [
        (None, {}, ValueError, "has no home"),
        ("a", {"b c": "tcp://127.0.0.1:1"}, ValueError, "not the name of a home"),
        ("a", {"b": "http://127.0.0.1:1"}, ValueError, "http"),
        ("a", {"b": 7}, TypeError, "URL"),
        ("a", {"a": trio_rpc.Instance("a", None)}, TypeError, "reached at a URL"),
        ("a", "tcp://127.0.0.1:1", ValueError, "must be nats://"),
        ("a", "nats://127.0.0.1:1/market/one", ValueError, "no instance"),
        ("a", "nats://127.0.0.1:1", ValueError, "service"),
        ("a", ["tcp://127.0.0.1:1"], TypeError, "URLs by name"),
    ],
)
async def test_bad_links_are_refused(home, links, error, text):
    with pytest.raises(error, match=text):
        async with open_spread(Gateway(Work(), home=home), links):
            pass


@pytest.mark.parametrize("home", ["", "a.b", "a b", "é", "x" * 65, "*", 7])
def test_a_home_that_is_not_a_name_is_refused(home):
    with pytest.raises(ValueError, match="not the name of a home"):
        Gateway(Work(), home=home)


async def test_a_gateway_is_joined_once():
    gateway = Gateway(Work(), home="a")
    async with open_spread(gateway, {}):
        with pytest.raises(RuntimeError, match="already"):
            async with open_spread(gateway, {}):
                pass
    async with open_spread(gateway, {}) as spread:
        assert spread.instances() == []
