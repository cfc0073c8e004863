"""Spans, durations and gauges through OpenTelemetry's SDK."""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from helpers.gateway_tools import browsing, hosting
from helpers.nats_broker import open_broker
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from trio.testing import wait_all_tasks_blocked

import trio_rpc
import trio_rpc.otel
from trio_rpc.gateway import Gateway
from trio_rpc.testing import open_session_pair

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
PAYLOAD = "a secret payload"


class Telemetry:
    """An SDK that keeps spans and metrics in memory."""

    def __init__(self):
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])
        self.filters = trio_rpc.otel.filters(self.tracers, self.meters)
        self.options = {"filters": self.filters}

    @property
    def spans(self):
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time)

    def clear(self):
        self._spans.clear()

    def span(self, name, kind):
        [found] = [each for each in self.spans if (each.name, each.kind) == (name, kind)]
        return found

    def tree(self):
        """Return the spans as text, each below its parent."""
        spans = self.spans
        known = {each.context.span_id for each in spans}

        def below(parent):
            found = []
            for span in spans:
                own = None if span.parent is None else span.parent.span_id
                if own == parent or (parent is None and own not in known):
                    found.append(f"{span.name} {span.kind.name.lower()}")
                    found += ["  " + line for line in below(span.context.span_id)]
            return found

        return below(None)

    def points(self, name):
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
async def telemetry():
    return Telemetry()


class Plugin:
    @trio_rpc.method
    async def work(self, on_progress: Callable[[float], Awaitable[None]]) -> str:
        await on_progress(0.5)
        return "done"


class Main:
    """Calls the plugin, and passes its progress on to its own caller."""

    def __init__(self, plugin):
        self._plugin = plugin

    @trio_rpc.method
    async def run(self, on_progress: Callable[[float], Awaitable[None]]) -> str:
        async def pass_on(share: float) -> None:
            await on_progress(share)

        return await self._plugin.work(pass_on)


CHAIN = [
    "run client",
    "  run server",
    "    work client",
    "      work server",
    "        callback 0 of work client",
    "          callback 0 of work server",
    "            callback 0 of run client",
    "              callback 0 of run server",
]


async def test_one_trace_over_client_main_plugin_and_their_callbacks(telemetry):
    shares = []

    async def on_progress(share: float) -> None:
        shares.append(share)

    ends = {"options_a": telemetry.options, "options_b": telemetry.options}
    async with open_session_pair(None, Plugin(), **ends) as (main, _):
        service = Main(main.proxy("", Plugin))
        async with open_session_pair(None, service, **ends) as (client, _):
            assert await client.proxy("", Main).run(on_progress) == "done"
    assert shares == [0.5]
    assert telemetry.tree() == CHAIN
    assert len({span.context.trace_id for span in telemetry.spans}) == 1


@pytest.mark.parametrize("opening", [trio_rpc.connect, trio_rpc.open_pool])
async def test_a_session_or_pool_over_nats_is_traced_as_any_other(telemetry, opening):
    async def on_progress(_: float) -> None: ...

    async with (
        open_broker() as broker,
        trio_rpc.open_server(Plugin(), f"{broker.url}/plugin/one", **telemetry.options) as server,
        opening(*server.urls, **telemetry.options) as session,
    ):
        assert await session.proxy("", Plugin).work(on_progress) == "done"
    assert telemetry.tree() == [line.removeprefix("    ") for line in CHAIN[2:6]]
    assert len({span.context.trace_id for span in telemetry.spans}) == 1


class Front:
    """The gateway's service, which a browser calls."""

    def __init__(self, main):
        self._main = main

    @trio_rpc.method
    async def start(self, on_progress: Callable[[float], Awaitable[None]]) -> str:
        async def pass_on(share: float) -> None:
            await on_progress(share)

        return await self._main.run(pass_on)


async def test_one_trace_over_browser_gateway_main_plugin_and_callback(telemetry):
    ends = {"options_a": telemetry.options, "options_b": telemetry.options}
    async with (
        open_session_pair(None, Plugin(), **ends) as (main, _),
        open_session_pair(None, Main(main.proxy("", Plugin)), **ends) as (gateway, _),
    ):
        front = Front(gateway.proxy("", Main))
        app = Gateway({"front": front}, filters=telemetry.filters)
        async with hosting(app) as url, browsing(url) as browser:
            answer = await browser.post("front.start", headers={"traceparent": PARENT})
            callbacks, end = await browser.until_end(answer.json()["request_uuid"])
            assert len(callbacks) == 1
            assert "done" in str(end)
    spans = telemetry.spans
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    assert telemetry.tree() == ["front.start server", *(f"  {line}" for line in CHAIN)]


class Bags:
    @trio_rpc.method
    async def bag(self, ask: Callable[[], Awaitable[str]] | None = None) -> str:
        return str(baggage.get_baggage("user")) if ask is None else await ask()

    @trio_rpc.method
    def plain(self) -> str:
        return str(baggage.get_baggage("user"))

    @trio_rpc.stream
    async def bags(self):
        yield str(baggage.get_baggage("user"))


@contextlib.contextmanager
def user(name):
    token = context.attach(baggage.set_baggage("user", name))
    try:
        yield
    finally:
        context.detach(token)


async def test_baggage_travels_with_calls_and_none_is_left_of_the_task_that_opened_the_session(
    telemetry,
):
    async def ask():
        return str(baggage.get_baggage("user"))

    with user("the server"):
        opened = open_session_pair(
            Bags(), None, options_a=telemetry.options, options_b=telemetry.options
        )
        ends = await opened.__aenter__()
    try:
        proxy = ends[1].proxy("", Bags)
        assert await proxy.bag() == "None"
        with user("ann"):
            assert await proxy.bag() == "ann"
            assert await proxy.plain() == "ann"
            assert await proxy.bag(ask) == "ann"
            async with proxy.bags() as bags:
                assert await bags.receive() == "ann"
        assert await proxy.bag() == "None"
    finally:
        await opened.__aexit__(None, None, None)


async def test_a_peer_does_not_choose_how_much_opentelemetry_logs(telemetry, caplog):
    async with open_session_pair(Bags(), None, options_a=telemetry.options) as (_, session):
        with trio_rpc.metadata(baggage="user=" + "x" * 10_000, traceparent=PARENT):
            assert await session.call("bag") == "None"
    assert not [each for each in caplog.records if each.name.startswith("opentelemetry")]
    assert f"{telemetry.spans[0].context.trace_id:032x}" == TRACE


class Service:
    @trio_rpc.method
    async def echo(self, text: str) -> str:
        return text

    @trio_rpc.method
    def plain(self) -> str:
        return f"{trace.get_current_span().get_span_context().span_id:x}"

    @trio_rpc.method
    async def fails(self) -> None:
        raise ValueError(PAYLOAD)

    @trio_rpc.method
    async def hangs(self) -> None:
        await trio.sleep_forever()

    @trio_rpc.notification
    async def note(self, text: str) -> None:
        await trio.lowlevel.checkpoint()

    @trio_rpc.stream
    async def count(self, to: int) -> AsyncIterator[str]:
        for _ in range(to):
            yield f"{trace.get_current_span().get_span_context().span_id:x}"

    @trio_rpc.method
    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @trio_rpc.fallback
    async def other(self, call: trio_rpc.Call) -> str:
        return "other"


@pytest.fixture
async def session(telemetry):
    ends = {"options_a": telemetry.options, "options_b": telemetry.options}
    async with open_session_pair(None, Service(), **ends) as (session, _):
        yield session


async def test_a_call_has_the_attributes_of_the_conventions(telemetry, session):
    assert await session.call("echo", PAYLOAD) == PAYLOAD
    for kind in (SpanKind.CLIENT, SpanKind.SERVER):
        span = telemetry.span("echo", kind)
        assert span.attributes["rpc.system.name"] == "trio_rpc"
        assert span.attributes["rpc.method"] == "echo"
        assert span.attributes["rpc.status_code"] == "ok"
        assert span.attributes["rpc.request.id"] == 1
        assert span.status.status_code is StatusCode.UNSET
        assert PAYLOAD not in span.to_json()


async def test_the_handler_runs_in_the_servers_span(telemetry, session):
    inside = await session.call("plain")
    assert inside == f"{telemetry.span('plain', SpanKind.SERVER).context.span_id:x}"
    async with session.stream("count", 2) as items:
        found = [item async for item in items]
    assert found == [f"{telemetry.span('count', SpanKind.SERVER).context.span_id:x}"] * 2
    assert telemetry.tree() == ["plain client", "  plain server", "count client", "  count server"]


async def test_a_pulled_stream_is_below_its_handler(telemetry, session):
    async def numbers():
        yield 1
        yield 2

    assert await session.proxy("", Service).total(numbers()) == 3
    assert telemetry.tree() == [
        "total client",
        "  total server",
        "    stream 0 of total client",
        "      stream 0 of total server",
    ]


async def test_a_notification_has_two_spans(telemetry, session):
    await session.notify("note", PAYLOAD)
    await session.ping()
    await wait_all_tasks_blocked()
    assert telemetry.tree() == ["note client", "  note server"]


async def test_an_error_is_named_but_its_text_is_not_told(telemetry, session):
    with pytest.raises(ValueError, match=PAYLOAD):
        await session.call("fails")
    for kind in (SpanKind.CLIENT, SpanKind.SERVER):
        span = telemetry.span("fails", kind)
        assert span.attributes["rpc.status_code"] == "raised"
        assert span.attributes["error.type"] == "ValueError"
        assert span.status.status_code is StatusCode.ERROR
        assert PAYLOAD not in span.to_json()


async def test_a_cancelled_call_says_so_and_is_not_an_error(telemetry, session):
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.call, "hangs")
            await wait_all_tasks_blocked()
            scope.cancel(reason="not needed")
    for kind in (SpanKind.CLIENT, SpanKind.SERVER):
        span = telemetry.span("hangs", kind)
        assert span.attributes["trio_rpc.cancelled"] is True
        assert span.attributes["rpc.status_code"] == "cancelled"
        assert "not needed" in span.attributes["trio_rpc.cancel_reason"]
        assert span.status.status_code is StatusCode.UNSET


async def test_a_refused_call_has_its_fate(telemetry, session):
    with pytest.raises(trio_rpc.InvalidArguments):
        await session.call("echo", 5)
    span = telemetry.span("echo", SpanKind.CLIENT)
    assert span.attributes["trio_rpc.fate"] == "not started"
    assert span.attributes["error.type"] == "invalid_arguments"
    assert span.status.status_code is StatusCode.ERROR


async def test_names_that_a_peer_chooses_make_no_new_attributes(telemetry, session):
    for number in range(100):
        assert await session.call(f"unknown{number}") == "other"
    servers = telemetry.points("rpc.server.call.duration")
    assert [point.attributes["rpc.method"] for point in servers] == ["_OTHER"]
    assert {span.name for span in telemetry.spans if span.kind is SpanKind.SERVER} == {"trio_rpc"}


class NoFallback:
    @trio_rpc.method
    async def known(self) -> None: ...


class Raises:
    @trio_rpc.fallback
    async def other(self, call: trio_rpc.Call) -> None:
        raise ValueError


MANY = 100
"""Names that a peer chooses. If none of them is held, 100,000 of them are not either."""

CHOSEN = "chosen-by-a-peer-"
"""The beginning of each of these names. A number follows, unlike in the source of this test."""


def _held():
    """Return the texts with such a name in them that any object of this program refers to."""
    is_chosen = re.compile(f"{CHOSEN}[0-9]").search
    found, objects = set(), gc.get_objects()
    for _ in range(2):  # Python does not list a dict or tuple that holds only texts and numbers
        referents = gc.get_referents(*objects)
        keys = [
            key for one in objects if type(one) is dict for key in one
        ]  # nor keys that are text
        found |= {one for one in [*referents, *keys] if type(one) is str and is_chosen(one)}
        objects = [
            one for one in referents if type(one) in (dict, tuple) and not gc.is_tracked(one)
        ]
    return found


async def _use(session, name):
    """Use one name in all ways in which a peer can use a name that the server does not know."""
    await session.notify(f"none.{name}")
    with contextlib.suppress(trio_rpc.MethodNotFound):
        await session.call(f"none.{name}")
    with contextlib.suppress(trio_rpc.MethodNotFound):
        async with session.stream(f"none.{name}"):
            pass
    assert await session.call(f"other.{name}") == "other"
    with contextlib.suppress(ValueError):
        await session.call(f"raises.{name}")


async def test_any_number_of_names_that_a_peer_chooses_leaves_nothing_behind(caplog):
    """No table has an entry for such a name, so 100,000 of them leave as little as 100 do."""
    caplog.set_level("CRITICAL", "trio_rpc")  # its handler keeps the lines
    meters = MeterProvider([InMemoryMetricReader()])
    filters = trio_rpc.otel.filters(trace.NoOpTracerProvider(), meters)
    services = {"none": NoFallback(), "other": Service(), "raises": Raises()}
    server = {"filters": filters}
    async with open_session_pair(None, services, options_b=server) as (session, _):
        for number in range(MANY):
            await _use(session, f"{CHOSEN}{number}")
        await _use(session, "last")
        await session.ping()
        gc.collect()
        assert _held() == set()


async def test_unknown_methods_are_one_method_of_the_client(telemetry):
    async with open_session_pair(options_a=telemetry.options) as (session, _):
        for number in range(10):
            with pytest.raises(trio_rpc.MethodNotFound):
                await session.call(f"unknown{number}")
    [point] = telemetry.points("rpc.client.call.duration")
    assert (point.attributes["rpc.method"], point.count) == ("_OTHER", 10)


async def test_durations_are_seconds_in_the_recommended_boundaries(
    telemetry, session, autojump_clock
):
    with trio.move_on_after(0.3):
        await session.call("hangs")
    for side in ("client", "server"):
        [point] = telemetry.points(f"rpc.{side}.call.duration")
        assert point.sum == pytest.approx(0.3)
        assert list(point.explicit_bounds) == list(trio_rpc.otel.BOUNDARIES)
        assert point.attributes["rpc.method"] == "hangs"


@pytest.mark.parametrize("parent", ["", "garbage", 5, "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
async def test_a_bad_traceparent_begins_a_new_trace(telemetry, session, parent):
    async with open_session_pair(None, Service(), options_b=telemetry.options) as (plain, _):
        with trio_rpc.metadata(traceparent=parent):
            assert await plain.call("echo", "x") == "x"
    assert telemetry.span("echo", SpanKind.SERVER).parent is None


async def test_the_span_in_which_a_session_was_opened_is_not_the_parent_of_its_calls(telemetry):
    tracer = telemetry.tracers.get_tracer("test")
    with tracer.start_as_current_span("start-up"):
        pair = open_session_pair(None, Service(), options_b=telemetry.options)
        async with pair as (session, _):
            await session.call("echo", "x")
    assert telemetry.span("echo", SpanKind.SERVER).parent is None


async def test_addresses_of_both_ends(telemetry):
    async with (
        trio_rpc.open_server(Service(), "tcp://127.0.0.1:0", **telemetry.options) as server,
        trio_rpc.connect(server.urls[0], **telemetry.options) as session,
    ):
        await session.call("echo", "x")
    client = telemetry.span("echo", SpanKind.CLIENT).attributes
    port = int(server.urls[0].rpartition(":")[2])
    assert (client["server.address"], client["server.port"]) == ("127.0.0.1", port)
    assert telemetry.span("echo", SpanKind.SERVER).attributes["client.address"] == "127.0.0.1"


async def test_the_figures_of_a_server_and_of_a_pool_are_observable(telemetry):
    async with trio_rpc.open_server(Service(), "tcp://127.0.0.1:0") as server:
        trio_rpc.otel.observe_server(server, telemetry.meters)
        async with trio_rpc.open_pool(*server.urls) as pool:
            trio_rpc.otel.observe_pool(pool, "services", telemetry.meters)
            assert await pool.call("echo", "x") == "x"
            [sessions] = telemetry.points("trio_rpc.server.sessions")
            assert (sessions.value, dict(sessions.attributes)) == (
                1,
                {"server.address": server.urls[0]},
            )
            [instances] = telemetry.points("trio_rpc.pool.instances")
            assert (instances.value, instances.attributes["trio_rpc.pool.state"]) == (1, "open")
            assert telemetry.points("trio_rpc.pool.calls_in_flight")[0].value == 0
    figures = set(trio_rpc.ServerStatistics.__dataclass_fields__)
    assert figures == set(trio_rpc.otel._SERVER)


async def _use_a_server_and_a_pool(telemetry):
    async with trio_rpc.open_server(Service(), "tcp://127.0.0.1:0") as server:
        trio_rpc.otel.observe_server(server, telemetry.meters)
        async with trio_rpc.open_pool(*server.urls) as pool:
            trio_rpc.otel.observe_pool(pool, "services", telemetry.meters)
            await pool.call("echo", "x")
    return weakref.ref(server), weakref.ref(pool)


async def test_the_figures_of_a_server_and_of_a_pool_do_not_keep_them(telemetry):
    kept = await _use_a_server_and_a_pool(telemetry)
    await wait_all_tasks_blocked()
    gc.collect()
    assert [found() for found in kept] == [None, None]
    assert telemetry.points("trio_rpc.server.sessions") == []
    assert telemetry.points("trio_rpc.pool.instances") == []


async def test_without_an_sdk_there_is_no_filter(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    assert trio_rpc.otel.filters() == []


async def test_with_an_sdk_that_is_configured_later_there_is_one():
    assert len(trio_rpc.otel.filters()) == 1
