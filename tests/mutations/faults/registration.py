"""Faults of services that are entered and left, of fallbacks, and of the events of a server."""

from __future__ import annotations

from ..fault import fault

EVENTS = "session/test_session_events.py"
FALLBACKS = "session/test_fallbacks.py"
HELD = "session/test_held_services.py"

FAULTS = (
    fault(
        "a parameter that no value ever fits is accepted by a session without a registry",
        "services/registration.py",
        "        if not self._has_registry:\n",
        "        if False:\n",
        "session/test_foreign_classes.py",
    ),
    fault(
        "a class that a registry carries is refused",
        "session/opening.py",
        "    none = _no_services(has_registry=bool(registry))\n",
        "    none = _no_services(has_registry=False)\n",
        "session/test_foreign_classes.py",
    ),
    fault(
        "a base of a type that arrives is refused as if no value fitted it",
        "services/foreign.py",
        "    if cls is None or any(issubclass(one, cls) for one in _ARRIVING):\n",
        "    if cls is None:\n",
        "session/test_foreign_classes.py",
    ),
    fault(
        "a service is left before the handlers have ended",
        "session/live_services.py",
        "        while self._incoming.running:\n",
        "        while False:\n",
        HELD,
    ),
    fault(
        "services are left in any order",
        "session/live_services.py",
        "            await later.has_left.wait()\n",
        "            pass\n",
        HELD,
    ),
    fault(
        "a stream of a name that no table has is said to be a method",
        "session/dispatch.py",
        "        if method.service is not None:  # a fallback",
        "        if False:  # a fallback",
        "session/test_fallbacks.py",
    ),
    fault(
        "a parameter that cannot be passed by name is said to have another name",
        "services/fitting.py",
        "            if one.by_name and found.name != one.name:\n",
        "            if one.by_name and (found.name != one.name or not found.by_name):\n",
        "services/test_fitting.py",
    ),
    fault(
        "a service that is removed at once is entered",
        "session/held_services.py",
        "                if not self._leaving.is_set():\n                    await",
        "                if True:\n                    await",
        HELD,
    ),
    fault(
        "a service that was entered in spite of its removal is said to leave late",
        "session/held_services.py",
        "cancelled_caught and self._scope.deadline < math.inf:",
        "cancelled_caught and self._is_entered:",
        HELD,
    ),
    fault(
        "a cancelled session leaves its services at once",
        "session/held_services.py",
        "trio.CancelScope(shield=True)",
        "trio.CancelScope()",
        HELD,
    ),
    fault(
        "leaving a service may take forever",
        "session/held_services.py",
        "            self._scope.deadline = trio.current_time() + self._patience\n",
        "            pass\n",
        HELD,
        hangs=True,
    ),
    fault(
        "a service is not told that its session broke",
        "session/live_services.py",
        "        if self._lifecycle.is_over and self._lifecycle.cause is not None:\n",
        "        if False:\n",
        HELD,
    ),
    fault(
        "the other end may call before a service has been entered",
        "session/driver.py",
        "        if must_enter:\n",
        "        if False:\n",
        HELD,
    ),
    fault(
        "a removed service is left before its own handlers have ended",
        "session/live_services.py",
        "            ).wait()\n            return\n",
        "            )\n            return\n",
        HELD,
    ),
    fault(
        "each session of a server enters a shared service again",
        "session/opening.py",
        "    return lambda _session: entered, tuple",
        "    return lambda _session: made, tuple",
        HELD,
    ),
    fault(
        "a name that cannot be shown reaches a fallback",
        "services/fallbacks.py",
        "    if service == RESERVED or len(name) > MAX_NAME or not name.isprintable():\n",
        "    if service == RESERVED:\n",
        FALLBACKS,
    ),
    fault(
        "the fallback of the service without a name gets no names of other services",
        "services/fallbacks.py",
        '    return fallbacks.get(service) or fallbacks.get("")\n',
        "    return fallbacks.get(service)\n",
        FALLBACKS,
    ),
    fault(
        "a fallback that refuses a name counts as a handler that has run",
        "session/fallback_calls.py",
        "            handled.has_begun = False",
        "            pass",
        FALLBACKS,
    ),
    fault(
        "a fallback keeps its names when its service is removed",
        "session/live_services.py",
        "        self._incoming.table, self._incoming.fallbacks = services.table, services.fallbacks\n",
        "        self._incoming.table = services.table\n"
        "        self._incoming.fallbacks = {**self._incoming.fallbacks, **services.fallbacks}\n",
        FALLBACKS,
    ),
    fault(
        "a reader of events gets the end of a session that it does not know",
        "session/session_events.py",
        "        if self._unread.pop(session, None) is None:\n",
        "        if True:\n",
        EVENTS,
    ),
    fault(
        "a server reports sessions that never opened",
        "server.py",
        "            if session in self.sessions:\n",
        "            if True:\n",
        EVENTS,
    ),
    fault(
        "the events of sessions go on when the server is over",
        "session/session_events.py",
        "        self._is_over = True\n        self._changed.set()\n",
        "        self._is_over = True\n",
        EVENTS,
        hangs=True,
    ),
    fault(
        "a reader of events does not learn of sessions that were open before",
        "session/session_events.py",
        "        for session in open_now:\n",
        "        for session in ():\n",
        EVENTS,
    ),
    fault(
        "a server leaves its shared services in any order",
        "session/held_services.py",
        "            await other.has_left.wait()\n",
        "            pass\n",
        HELD,
    ),
)
