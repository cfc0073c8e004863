"""Faults of the operators' tools: OpenTelemetry and health."""

from __future__ import annotations

from ..fault import fault

HEALTH = "health/test_health.py"
OTEL = "otel/test_otel.py"

FAULTS = (
    fault(
        "a status set in another thread is half set, and no watcher is told",
        "health.py",
        "        if self._owner is not None and not self._owner.is_over:\n            self._owner.check()\n",
        "",
        HEALTH,
    ),
    fault(
        "a watcher is not told of a new status",
        "health.py",
        "        changed.set()\n",
        "",
        HEALTH,
        hangs=True,
    ),
    fault(
        "a watcher sees a status again that has not changed",
        "health.py",
        "            if status != shown:\n",
        "            if True:\n",
        HEALTH,
        hangs=True,
    ),
    fault(
        "a status may be any text",
        "health.py",
        "        if status not in get_args(HealthStatus):\n",
        "        if False:\n",
        HEALTH,
    ),
    fault(
        "a callee's span begins a trace of its own",
        "otel.py",
        "        parent = _parent_of(call) if call.is_incoming else None\n",
        "        parent = None\n",
        OTEL,
    ),
    fault(
        "the trace does not travel with a call",
        "otel.py",
        "    with trio_rpc.metadata(**carrier):\n",
        "    with trio_rpc.metadata():\n",
        OTEL,
    ),
    fault(
        "a peer that calls any name through a fallback makes a new time series each time",
        "otel.py",
        "    return OTHER if is_fallback else one_line(call.method, 200)\n",
        "    return one_line(call.method, 200)\n",
        OTEL,
    ),
    fault(
        "a name that does not exist makes a new time series",
        "otel.py",
        '                attributes["rpc.method"] = OTHER\n',
        "                pass\n",
        OTEL,
    ),
    fault(
        "the duration of a call that fails is not recorded",
        "otel.py",
        "            error = exc\n            raise\n",
        "            span.end()\n            raise\n",
        OTEL,
    ),
    fault(
        "an incoming call without metadata continues the trace in which the session was opened",
        "otel.py",
        "get_current() if is_ours else Context()",
        "get_current()",
        OTEL,
    ),
    fault(
        "a handler has the baggage of the task that opened the session, and not of its caller",
        "otel.py",
        "        token = attach(trace.set_span_in_context(span, parent))\n",
        "        token = attach(trace.set_span_in_context(span))\n",
        OTEL,
    ),
    fault(
        "a peer chooses how much OpenTelemetry logs",
        "otel.py",
        " and len(value) <= LONGEST_FIELD\n",
        "\n",
        OTEL,
    ),
    fault(
        "the figures of a server keep it alive",
        "otel.py",
        "    found = weakref.ref(server)\n",
        "    found = lambda: server  # noqa: E731\n",
        OTEL,
    ),
    fault(
        "the figures of a pool keep it alive",
        "otel.py",
        '    found, own = weakref.ref(pool), {"trio_rpc.pool.name": name}\n',
        '    found, own = (lambda: pool), {"trio_rpc.pool.name": name}\n',
        OTEL,
    ),
)
