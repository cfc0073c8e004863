"""Jobs: calls that belong to no client, over raw HTTP and with the Python client."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import httpx
import pytest
import trio
import trio.testing
from helpers.gateway_tools import hosting

import trio_rpc
from trio_rpc.errors import Fate
from trio_rpc.gateway import Gateway, GatewayLimits, Message, call_back, outlives
from trio_rpc.gateway.client import job as client
from trio_rpc.gateway.server.job_caller import JobCaller
from trio_rpc.gateway.server.memory_budget import MemoryBudget
from trio_rpc.testing import open_chaos_proxy

KEY = "a-key-that-is-hard-to-guess"


class Reports:
    """Builds reports, one step for each time that ``step`` is called."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.ended = trio.Event()
        self.runs = 0
        self._steps_send, self._steps = trio.open_memory_channel[int](100)

    def step(self, number: int) -> None:
        self._steps_send.send_nowait(number)

    def finish(self) -> None:
        self._steps_send.close()

    @trio_rpc.method
    @outlives
    async def build(
        self,
        year: int,
        progress: Callable[[float], Awaitable[None]],
        at: Callable[[int, str], Awaitable[None]] | None = None,
    ) -> dict[str, int]:
        self.runs += 1
        self.started.set()
        try:
            async for number in self._steps:
                await progress(number / 10)
                if at is not None:
                    await at(number, "page")
        finally:
            self.ended.set()
        return {"year": year}

    @trio_rpc.method
    @outlives
    async def fail(self) -> None:
        raise LookupError("no such year")

    @trio_rpc.method
    @outlives
    async def together(self, x: Callable[[int], Awaitable[None]], y: Callable[[], Awaitable[None]]):
        await call_back(x=1, y=())

    @trio_rpc.method
    @outlives
    async def asks(
        self,
        sure: Callable[[str], Awaitable[bool]],
        maybe: Callable[[str], Awaitable[bool | None]],
    ) -> list[str]:
        got = repr(await maybe("?"))
        try:
            await sure("?")
        except trio_rpc.LocalProtocolError as exc:
            return [got, str(exc)]
        return [got]

    @trio_rpc.method
    async def short(self) -> int:
        return 7

    @trio_rpc.method
    @outlives
    async def big(self, size: int, blob: Callable[[str], Awaitable[None]]) -> None:
        for _ in range(3):
            await blob("x" * size)
        self.ended.set()


@pytest.fixture
def reports():
    return Reports()


def message_of(url: str) -> Message:
    address = httpx.URL(url)
    return Message(address.host, address.port)


async def started(http: httpx.AsyncClient, method: str = "build", **data: object) -> tuple:
    answer = await http.post(f"/api/{method}?job=1", json=data)
    assert answer.status_code == 202, answer.text
    body = answer.json()
    return f"/api/result/{body['request_uuid']}", {"Trio-Rpc-Token": body["token"]}


async def test_a_job_goes_on_and_is_found_again_by_its_id(reports):
    """Start a job, leave, come back as another client: progress, result."""
    async with hosting(Gateway(reports)) as url:
        name = (await message_of(url).start("build", {"year": 2024})).id
        await reports.started.wait()
        again = message_of(url).job(name)
        assert await again.progress() == {}
        reports.step(3)
        shown = []

        def show(share: float) -> None:
            shown.append(share)
            if share == 0.3:
                reports.step(5)
            else:
                reports.finish()

        assert await again.result({"progress": show}) == {"year": 2024}
        assert shown == [0.3, 0.5]
        assert await again.progress() == {"progress": 0.5, "at": [5, "page"]}
        assert await message_of(url).job(name).result() == {"year": 2024}


async def test_the_last_progress_comes_before_the_result(reports):
    """A client that watches a job that has ended gets its last progress, and then its result."""
    async with hosting(Gateway(reports)) as url:
        job = await message_of(url).start("build", {"year": 1})
        for number in range(5):
            reports.step(number)
        reports.finish()
        await reports.ended.wait()
        shown = []
        assert await job.result({"at": lambda *given: shown.append(given)}) == {"year": 1}
        assert shown == [(4, "page")]


async def test_cancelling_a_job_returns_when_its_handler_has_ended(reports):
    async with hosting(Gateway(reports)) as url:
        job = await message_of(url).start("build", {"year": 1})
        await reports.started.wait()
        await job.cancel()
        assert reports.ended.is_set()
        with pytest.raises(trio_rpc.RemoteCancelled):
            await job.result()
        await job.cancel()  # again: it has ended


async def test_cancelling_a_wait_for_the_result_does_not_cancel_the_job(reports):
    async with hosting(Gateway(reports)) as url:
        job = await message_of(url).start("build", {"year": 1})
        reports.step(1)
        with trio.CancelScope() as scope:
            await job.result({"progress": lambda _: scope.cancel()})
        assert scope.cancelled_caught
        reports.finish()
        assert await job.result() == {"year": 1}


async def test_two_clients_watch_one_job(reports):
    """Two tabs see the same progress, and the same result."""
    async with hosting(Gateway(reports)) as url, trio.open_nursery() as nursery:
        job = await message_of(url).start("build", {"year": 1})
        shown: list[float] = []
        results = []

        async def watch() -> None:
            other = message_of(url).job(job.id)
            results.append(await other.result({"progress": shown.append}))

        reports.step(1)
        nursery.start_soon(watch)
        nursery.start_soon(watch)
        while len(shown) < 2:
            await trio.lowlevel.checkpoint()
        reports.finish()
    assert (shown, results) == ([0.1, 0.1], [{"year": 1}] * 2)


async def test_an_error_of_a_job_is_raised_by_its_result(reports):
    async with hosting(Gateway(reports)) as url:
        job = await message_of(url).start("fail")
        with pytest.raises(trio_rpc.RemoteError, match="no such year") as caught:
            await job.result()
        assert caught.value.type_name == "builtins.LookupError"


async def test_a_callback_that_raises_is_logged_and_the_others_go_on(reports, caplog):
    async with hosting(Gateway(reports)) as url:
        job = await message_of(url).start("build", {"year": 1})
        reports.step(1)
        reports.finish()
        shown = []

        async def at(number: int, text: str) -> None:
            await trio.lowlevel.checkpoint()
            shown.append((number, text))

        def progress(share: float) -> None:
            raise RuntimeError("broken page")

        with caplog.at_level(logging.WARNING, "trio_rpc.gateway"):
            assert await job.result({"progress": progress, "at": at}) == {"year": 1}
        assert shown == [(1, "page")]
        assert "the callback 'progress' failed" in caplog.text


async def test_several_callbacks_of_one_message_and_one_without_arguments(reports):
    async with hosting(Gateway(reports)) as url:
        job = await message_of(url).start("together")
        got: list[object] = []
        await job.result({"x": got.append, "y": lambda: got.append("y")})
        assert got == [1, "y"]


async def test_a_callback_of_a_job_returns_no_value(reports):
    async with hosting(Gateway(reports)) as url:
        job = await message_of(url).start("asks")
        nothing, text = await job.result()
        assert nothing == "None"
        assert text == "sure: the callbacks of this client return no values"


async def test_a_method_that_is_not_marked_cannot_be_a_job(reports):
    async with hosting(Gateway(reports)) as url:
        with pytest.raises(trio_rpc.InvalidArguments, match="is not marked with @outlives"):
            await message_of(url).start("short")
        with pytest.raises(trio_rpc.MethodNotFound):
            await message_of(url).start("nothing")
        with pytest.raises(trio_rpc.InvalidArguments):
            await message_of(url).start("build", {"year": "x"})
        with pytest.raises(trio_rpc.EncodeError):
            await message_of(url).start("build", {"year": {1, 2}})


async def test_the_time_limit_of_a_job(reports):
    async with hosting(Gateway(reports)) as url:
        job = await message_of(url).start("build", {"year": 1}, time_limit=0.01)
        with pytest.raises(trio_rpc.RemoteCancelled):
            await job.result()
        assert reports.ended.is_set() == reports.started.is_set()


@pytest.mark.parametrize(
    "name", ["", "x", "../x.y", f"{'0' * 36}.short", f"{'0' * 36}.{'a' * 16}/"]
)
def test_a_text_that_is_not_an_id_is_refused_before_anything_is_sent(name):
    with pytest.raises(ValueError, match="not the id of a job"):
        Message("localhost", 1).job(name)


async def test_a_job_that_is_not_held_is_lost(reports):
    """A gateway that was started again, or whose ``result_ttl`` is over, holds nothing."""
    async with hosting(Gateway(reports)) as url:
        job = await message_of(url).start("build", {"year": 1})
    async with hosting(Gateway(reports)) as url:
        other = message_of(url).job(job.id)
        for ask in (other.result, other.progress, other.cancel):
            with pytest.raises(trio_rpc.SessionBroken, match="does not hold it") as caught:
                await ask()
            assert caught.value.fate is Fate.UNKNOWN


async def test_the_id_of_another_job_or_a_wrong_token_opens_nothing(reports):
    async with hosting(Gateway(reports)) as url, httpx.AsyncClient(base_url=url) as http:
        path, token = await started(http, year=1)
        _, other = await started(http, year=1)
        for verb in ("GET", "DELETE"):
            assert (await http.request(verb, path)).status_code == 401
            assert (await http.request(verb, path, headers=other)).status_code == 403
        assert (await http.get(path, headers=token)).status_code == 202
        assert not reports.ended.is_set()


async def test_a_legacy_gateway_does_not_open_jobs_without_a_token(reports):
    gateway = Gateway(reports, legacy_clients=True)
    async with hosting(gateway) as url, httpx.AsyncClient(base_url=url) as http:
        path, _ = await started(http, year=1)
        assert (await http.get(path)).status_code == 401


async def test_raw_http_without_a_client(reports):
    """The requests that docs/gateway.md describes."""
    async with hosting(Gateway(reports)) as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.post("/api/build?job=1", json={"year": 1})
        body = answer.json()
        assert (answer.status_code, body["type"]) == (202, "start")
        assert body["callbacks"] == ["progress", "at"]
        path, token = f"/api/result/{body['request_uuid']}", {"Trio-Rpc-Token": body["token"]}
        state = {"type": "running", "request_uuid": body["request_uuid"]}
        got = await http.get(path, headers=token)
        assert (got.status_code, got.json()) == (
            202,
            {**state, "news": 0, "callbacks": {}, "spread": []},
        )
        reports.step(5)
        got = await http.get(f"{path}?after=0&wait=20", headers=token)
        assert got.json()["callbacks"]["progress"] == 0.5
        while (got := (await http.get(f"{path}?after=1", headers=token)).json())["news"] < 2:
            await trio.lowlevel.checkpoint()
        assert got == {**state, "news": 2, "callbacks": {"at": [5, "page"]}, "spread": ["at"]}
        reports.finish()
        got = await http.get(f"{path}?after=2&wait=20", headers=token)
        end = {"type": "finish", "request_uuid": body["request_uuid"], "year": 1}
        assert (got.status_code, got.json()) == (200, end)
        got = await http.get(f"{path}?after=1&wait=20", headers=token)
        assert got.json()["type"] == "running"  # one that missed the last progress gets it first
        assert (await http.get(path, headers=token)).json() == end


@pytest.mark.parametrize(
    "query", ["after=-1", "after=1.5", "wait=x", "after=", f"after={'9' * 30}"]
)
async def test_a_malformed_query_is_refused(reports, query):
    async with hosting(Gateway(reports)) as url, httpx.AsyncClient(base_url=url) as http:
        path, token = await started(http, year=1)
        assert (await http.get(f"{path}?{query}", headers=token)).status_code == 400


async def test_a_repeated_request_with_the_same_key_starts_one_job(reports):
    """A key that could be guessed is refused, since a client that repeats it gets the token."""
    async with hosting(Gateway(reports)) as url, httpx.AsyncClient(base_url=url) as http:
        headers = {"Idempotency-Key": KEY}
        first = await http.post("/api/build?job=1", json={"year": 1}, headers=headers)
        again = await http.post("/api/build?job=1", json={"year": 1}, headers=headers)
        assert first.json() == again.json()
        await reports.started.wait()
        assert reports.runs == 1
        headers = {"Idempotency-Key": "1"}
        got = await http.post("/api/build?job=1", json={"year": 1}, headers=headers)
        assert got.status_code == 400


async def test_a_start_whose_answer_was_lost_is_repeated_once_and_starts_one_job(reports):
    async with hosting(Gateway(reports)) as url:
        message = message_of(url)
        send, answers = message._web._send, []

        async def lose_one(*args, **kwargs):
            answers.append(await send(*args, **kwargs))
            if len(answers) == 1:
                raise trio_rpc.SessionBroken("lost")
            return answers[-1]

        message._web._send = lose_one
        job = await message.start("build", {"year": 1})
        reports.finish()
        assert await job.result() == {"year": 1}
        assert (reports.runs, len(answers)) == (1, 3)


async def test_more_waiting_requests_than_allowed_are_answered_at_once(reports):
    limits = GatewayLimits(max_waiting=1)
    gateway = Gateway(reports, limits=limits)
    async with hosting(gateway) as url, httpx.AsyncClient(base_url=url) as http:
        path, token = await started(http, year=1)
        async with trio.open_nursery() as nursery:
            first = []

            async def wait() -> None:
                first.append(await http.get(f"{path}?wait=30", headers=token, timeout=60))

            nursery.start_soon(wait)
            while not gateway._state.waiting:
                await trio.lowlevel.checkpoint()
            with trio.fail_after(20):
                got = await http.get(f"{path}?wait=30", headers=token, timeout=60)
            assert got.status_code == 202
            reports.finish()
        assert first[0].status_code == 200
        assert gateway._state.waiting == 0


async def test_a_client_that_hangs_up_waits_no_more(reports):
    gateway = Gateway(reports)
    async with hosting(gateway) as url, httpx.AsyncClient(base_url=url) as http:
        path, token = await started(http, year=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: http.get(f"{path}?wait=30", headers=token))
            while not gateway._state.waiting:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        while gateway._state.waiting:
            await trio.lowlevel.checkpoint()
        assert not reports.ended.is_set()


async def test_jobs_are_bounded_together_with_calls_that_outlive_their_clients(reports):
    limits = GatewayLimits(max_results=2)
    async with hosting(Gateway(reports, limits=limits)) as url:
        message = message_of(url)
        first = await message.start("build", {"year": 1})
        await message.start("build", {"year": 2})
        with pytest.raises(trio_rpc.Unavailable, match="2 calls that may outlive"):
            await message.start("build", {"year": 3})
        await first.cancel()
        await message.start("build", {"year": 4})  # it replaces the one that has ended
        with pytest.raises(trio_rpc.SessionBroken):
            await first.result()


async def test_the_arguments_of_jobs_count_in_max_unsent():
    """A handler waits while too much is held. New arguments replace the last ones."""
    budget = MemoryBudget(100_000)
    job = JobCaller(budget)

    async def blob(size: int) -> None:
        await job.call_back(None, {"type": "callback", "request_uuid": "1", "blob": "x" * size})

    await blob(50_000)
    assert (job.number, budget.size, job.size) == (1, 50_002, 50_002)
    budget.take(60_000)  # stands for clients that do not read
    async with trio.open_nursery() as nursery:
        nursery.start_soon(blob, 55_000)
        await trio.testing.wait_all_tasks_blocked()
        assert job.number == 1
        await blob(40_000)  # fewer bytes than it replaces
        assert (job.number, budget.size) == (2, 100_002)
        budget.give_back(60_000)
    assert (job.number, budget.size) == (3, 55_002)
    assert job.since(2)["callbacks"].keys() == {"blob"}
    assert job.since(3)["callbacks"] == {}
    job.forget(None)
    assert budget.size == 0, "an ended job counts in result_bytes"


async def test_the_bytes_of_ended_jobs_are_bounded(reports):
    """The result of a job and its last arguments count in ``result_bytes``."""
    limits = GatewayLimits(result_bytes=100_000)
    async with hosting(Gateway(reports, limits=limits)) as url:
        message = message_of(url)
        first = await message.start("big", {"size": 60_000})
        await first.result()
        second = await message.start("big", {"size": 60_000})
        await second.result()
        with pytest.raises(trio_rpc.SessionBroken):
            await first.result()


async def test_a_watcher_outlasts_a_lost_connection_and_a_gateway_that_cannot_be_reached(reports):
    async with hosting(Gateway(reports)) as url:
        async with (
            open_chaos_proxy(f"tcp{url.removeprefix('http')}") as proxy,
            trio.open_nursery() as nursery,
        ):
            message = message_of(f"http{proxy.url.removeprefix('tcp')}")
            job = await message.start("build", {"year": 1})
            reports.step(1)
            shown = []

            async def refuse_once() -> None:
                proxy.is_refusing = True
                proxy.cut()
                known = proxy.accepted
                while proxy.accepted == known:
                    await trio.lowlevel.checkpoint()
                proxy.is_refusing = False

            def show(share: float) -> None:
                shown.append(share)
                if share == 0.1:
                    nursery.start_soon(refuse_once)
                    reports.step(2)
                else:
                    reports.finish()

            assert await job.result({"progress": show}) == {"year": 1}
            assert shown == [0.1, 0.2]


async def test_a_gateway_that_cannot_be_reached_is_given_up(reports, monkeypatch):
    monkeypatch.setattr(client, "OUTAGE", 0.3)
    async with hosting(Gateway(reports)) as url:
        job = await message_of(url).start("build", {"year": 1})
        with pytest.raises(trio_rpc.SessionBroken):
            await message_of(url).job(f"{'0' * 36}.{'a' * 16}").progress()
        assert await job.progress() == {}
    with pytest.raises(OSError, match="cannot connect"):
        await job.result()
    with pytest.raises(OSError, match="cannot connect"):
        await message_of(url).job(job.id).result()  # never reached: no second attempt


async def test_the_identity_is_checked_for_jobs_as_well(reports):
    async def check(request):
        if request.headers.get("authorization") != "good":
            raise trio_rpc.Refused("log in first")

    gateway = Gateway(reports, authenticate=check)
    async with hosting(gateway) as url:
        address = httpx.URL(url)
        good = Message(address.host, address.port, headers={"Authorization": "good"})
        job = await good.start("build", {"year": 1})
        for ask in (
            lambda: message_of(url).start("build", {"year": 1}),
            message_of(url).job(job.id).result,
        ):
            with pytest.raises(trio_rpc.Refused):
                await ask()
        reports.finish()
        assert await job.result() == {"year": 1}


async def test_draining_waits_for_jobs_and_closing_cancels_them(reports):
    gateway = Gateway(reports)
    async with hosting(gateway) as url, trio.open_nursery() as nursery:
        job = await message_of(url).start("build", {"year": 1})
        await reports.started.wait()
        nursery.start_soon(gateway.drain)
        while not gateway._state.is_draining:
            await trio.lowlevel.checkpoint()
        with pytest.raises(trio_rpc.Unavailable):
            await message_of(url).start("build", {"year": 1})
        reports.finish()
        assert await job.result() == {"year": 1}


async def test_the_end_of_the_gateway_cancels_jobs(reports):
    async with hosting(Gateway(reports)) as url:
        await message_of(url).start("build", {"year": 1})
        await reports.started.wait()
    assert reports.ended.is_set()
