"""OpenTelemetry for calls: spans and durations, and gauges of servers and pools.

``filters=trio_rpc.otel.filters()`` at both ends gives each call a span at its caller and one at its
handler, joined through the entry ``traceparent`` of its metadata. So calls that a handler makes,
callbacks and pulled streams included, are below the handler's span, through any number of programs.

The names follow OpenTelemetry's semantic conventions for RPC. This module needs only the API
(``pip install 'trio-rpc[otel]'``); the program chooses and configures an SDK.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import trio

import trio_rpc
from trio_rpc.session.calls.context import handled_call
from trio_rpc.util.extras import needs_extra
from trio_rpc.util.text import one_line

try:
    from opentelemetry import metrics, propagate, trace
    from opentelemetry.context import Context, attach, detach, get_current
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ModuleNotFoundError as exc:
    text = needs_extra("trio_rpc.otel", "otel", exc)
    if text is None:
        raise
    raise ModuleNotFoundError(text, name=exc.name) from None

__all__ = ["filters", "observe_pool", "observe_server"]

NAME: Final = "trio_rpc"

BOUNDARIES: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The boundaries of the histograms, in seconds, as the conventions recommend."""

LONGEST_FIELD: Final = 8192
"""Characters of a field of metadata that is read: the longest baggage that the W3C requires."""

OTHER: Final = "_OTHER"
"""The method in the attributes of a call that has no method of a known name."""

_CODES: Final[Mapping[type[BaseException], str]] = {
    trio_rpc.MethodNotFound: "method_not_found",
    trio_rpc.InvalidArguments: "invalid_arguments",
    trio_rpc.Overloaded: "overloaded",
    trio_rpc.Unavailable: "unavailable",
    trio_rpc.RemoteCancelled: "cancelled",
    trio_rpc.SessionClosed: "session_closed",
    trio_rpc.SessionBroken: "session_broken",
    trio.Cancelled: "cancelled",
}


def filters(
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> list[trio_rpc.Filter]:
    """Return the filters that make spans and measure durations, for ``filters=`` of a session.

    Put them first, so that the times include your other filters, and those can use the span. If no
    SDK is installed and no provider is given, the list is empty, so that calls cost no more.

    Args:
        tracer_provider: makes the tracer; by default OpenTelemetry's global provider.
        meter_provider: makes the histograms; by default the global one.

    Example:
        >>> async def main(services: object) -> None:
        ...     filters = trio_rpc.otel.filters()
        ...     await trio_rpc.serve(services, "tcp://127.0.0.1:5000", filters=filters)
    """
    if tracer_provider is None and meter_provider is None and not _has_sdk():
        return []
    return [_Telemetry(tracer_provider, meter_provider)]


class _Telemetry:
    """The filter: a span round each call, and its duration afterwards."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
    ) -> None:
        version = trio_rpc.__version__
        self._tracer = trace.get_tracer(NAME, version, tracer_provider)
        meter = metrics.get_meter(NAME, version, meter_provider)
        self._durations = {
            is_incoming: meter.create_histogram(
                f"rpc.{side}.call.duration",
                unit="s",
                description=f"Duration of {what}",
                explicit_bucket_boundaries_advisory=list(BOUNDARIES),
            )
            for is_incoming, side, what in (
                (False, "client", "outgoing calls"),
                (True, "server", "incoming calls"),
            )
        }

    async def __call__(self, call: trio_rpc.Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Run a call inside its span."""
        parent = _parent_of(call) if call.is_incoming else None
        method = _name_of(call)
        attributes: dict[str, Any] = {"rpc.system.name": NAME, "rpc.method": method}
        span = self._tracer.start_span(
            method if method != OTHER else NAME,
            context=parent,
            kind=SpanKind.SERVER if call.is_incoming else SpanKind.CLIENT,
            attributes={**attributes, **_address(call)},
            record_exception=False,  # its text may contain data of the application
            set_status_on_exception=False,
        )
        began, error = trio.current_time(), None
        # The handler gets the whole context of the metadata, such as the baggage, and nothing of
        # the context of the task that has opened the session.
        token = attach(trace.set_span_in_context(span, parent))
        try:
            return await (proceed() if call.is_incoming else _send(proceed))
        except BaseException as exc:
            error = exc
            raise
        finally:
            detach(token)
            attributes |= _outcome(error)
            if isinstance(error, trio_rpc.MethodNotFound):
                attributes["rpc.method"] = OTHER
            self._durations[call.is_incoming].record(trio.current_time() - began, attributes)
            if span.is_recording():
                _finish(span, call, error, attributes)
            span.end()
            error = None  # its traceback holds this frame


async def _send(proceed: Callable[[], Awaitable[Any]]) -> Any:
    """Make a call whose metadata say which span it belongs to."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    with trio_rpc.metadata(**carrier):
        return await proceed()


def _parent_of(call: trio_rpc.Call) -> Context:
    """Return the context of an incoming call's span.

    It is a child of the span that the call's metadata name. Without one, a callback belongs to this
    program's own call. Any other call of a session begins a trace: the span that was current when
    the session was opened does not concern it. A call of a gateway has the context of its HTTP
    request, in which a middleware may have set baggage.
    """
    handled = handled_call.get()
    is_callback = handled is not None and handled.parent_call is not None
    is_ours = is_callback or call.session_or_none is None
    known = propagate.get_global_textmap().fields
    texts = {
        key: value
        for key, value in call.metadata.items()
        # OpenTelemetry logs a longer text as a whole.
        if key in known and isinstance(value, str) and len(value) <= LONGEST_FIELD
    }
    return propagate.extract(texts, get_current() if is_ours else Context())


def _name_of(call: trio_rpc.Call) -> str:
    """Return the method of a call; ``_OTHER`` if a peer may have chosen any name."""
    handled = handled_call.get() if call.is_incoming else None
    is_fallback = handled is not None and handled.method.service is not None
    return OTHER if is_fallback else one_line(call.method, 200)


def _address(call: trio_rpc.Call) -> dict[str, Any]:
    """Return the attributes that name the other end."""
    session = call.session_or_none
    if session is None:
        return {}
    host, _, port = session.name.rpartition(":")
    if not port.isdecimal():
        return {"server.address": one_line(session.name, 200)} if not call.is_incoming else {}
    host = host.rpartition("/")[2].strip("[]")
    side = "client" if call.is_incoming else "server"
    return {f"{side}.address": host, f"{side}.port": int(port)}


def _outcome(error: BaseException | None) -> dict[str, str]:
    """Return the attributes that say how a call ended."""
    if error is None:
        return {"rpc.status_code": "ok"}
    code = next((code for cls, code in _CODES.items() if isinstance(error, cls)), "raised")
    # A class of this program, or a constant. The peer chooses the name in a RemoteError.
    kind = type(error).__qualname__ if code == "raised" else code
    return {"rpc.status_code": code, "error.type": kind}


def _finish(
    span: trace.Span,
    call: trio_rpc.Call,
    error: BaseException | None,
    attributes: Mapping[str, str],
) -> None:
    """Set the attributes that are known when a call has ended."""
    span.set_attributes(attributes)
    if call.id is not None:
        span.set_attribute("rpc.request.id", call.id)
    if error is None:
        return
    is_cancelled = isinstance(error, trio.Cancelled)
    span.set_attribute("trio_rpc.cancelled", is_cancelled)
    if isinstance(error, trio_rpc.RpcError):
        span.set_attribute("trio_rpc.fate", error.fate.value)
    if is_cancelled and isinstance(reason := getattr(error, "reason", None), str):
        span.set_attribute("trio_rpc.cancel_reason", one_line(reason, 200))
    is_refusal = call.is_incoming and isinstance(error, trio_rpc.CallError)
    if not is_cancelled and not is_refusal:
        span.set_status(Status(StatusCode.ERROR, attributes["error.type"]))


def observe_server(
    server: trio_rpc.Server, meter_provider: metrics.MeterProvider | None = None
) -> None:
    """Make the figures of ``server.statistics()`` observable, as ``trio_rpc.server.sessions`` etc.

    Figures that only grow are counters, and the others gauges. They end with the server.

    Args:
        server: the server.
        meter_provider: makes the instruments; by default OpenTelemetry's global provider.
    """
    meter = metrics.get_meter(NAME, trio_rpc.__version__, meter_provider)
    found = weakref.ref(server)
    for name, (unit, description) in _SERVER.items():

        def observe(_options: object, name: str = name) -> Iterable[metrics.Observation]:
            server = found()
            if server is None:
                return []
            value = getattr(server.statistics(), name)
            return [metrics.Observation(value, {"server.address": ",".join(server.urls)})]

        is_counter = name in _COUNTERS
        create = meter.create_observable_counter if is_counter else meter.create_observable_gauge
        create(f"{NAME}.server.{name}", [observe], unit=unit, description=description)


_COUNTERS: Final = (
    "sessions_refused",
    "handshakes_given_up",
    "calls_refused",
    "calls_too_late",
)
_SERVER: Final[Mapping[str, tuple[str, str]]] = {
    "sessions": ("{session}", "Open sessions"),
    "opening": ("{connection}", "Connections whose handshakes are not finished"),
    "sessions_refused": ("{session}", "Sessions refused because the server was full"),
    "handshakes_given_up": ("{connection}", "Handshakes that newer clients have displaced"),
    "handlers": ("{call}", "Handlers that have begun and not ended"),
    "calls_queued": ("{call}", "Calls that wait for their turn"),
    "calls_refused": ("{call}", "Calls refused because they would have waited for too long"),
    "calls_too_late": ("{call}", "Calls refused because their deadline had passed"),
    "bytes_unsent": ("By", "Bytes held for the peers of all sessions"),
}
"""The figures of a server, by the names in its statistics."""


def observe_pool(
    pool: trio_rpc.Pool, name: str, meter_provider: metrics.MeterProvider | None = None
) -> None:
    """Make the instances of a pool observable, by state, and its calls in flight.

    The gauges are ``trio_rpc.pool.instances`` and ``trio_rpc.pool.calls_in_flight``.

    Args:
        pool: the pool.
        name: the name of the pool, for the attribute ``trio_rpc.pool.name``.
        meter_provider: makes the instruments; by default OpenTelemetry's global provider.
    """
    meter = metrics.get_meter(NAME, trio_rpc.__version__, meter_provider)
    found, own = weakref.ref(pool), {"trio_rpc.pool.name": name}

    def instances() -> Sequence[trio_rpc.InstanceStatus]:
        pool = found()
        return [] if pool is None else pool.instances()

    def count(_options: object) -> Iterable[metrics.Observation]:
        states = Counter(each.state for each in instances())
        return [
            metrics.Observation(number, {**own, "trio_rpc.pool.state": state})
            for state, number in states.items()
        ]

    def in_flight(_options: object) -> Iterable[metrics.Observation]:
        return [metrics.Observation(sum(each.calls_in_flight for each in instances()), own)]

    prefix = f"{NAME}.pool"
    meter.create_observable_gauge(f"{prefix}.instances", [count], unit="{instance}")
    meter.create_observable_gauge(f"{prefix}.calls_in_flight", [in_flight], unit="{call}")


def _has_sdk() -> bool:
    """Return whether spans can go anywhere: an SDK is installed, or a provider is set."""
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return True
    try:
        import opentelemetry.sdk  # noqa: F401, PLC0415 - only to see whether it is there
    except ImportError:
        return False
    return True
