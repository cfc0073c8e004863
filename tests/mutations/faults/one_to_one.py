"""Faults of service clients, of handlers of connections, and of the code that connects them."""

from __future__ import annotations

from ..fault import fault

CLIENT = "session/test_service_client.py"
HANDLERS = "session/test_connection_handlers.py"
FORWARDED = "channels/test_forwarded_resuming.py"

FAULTS = (
    fault(
        "calls that waited for a connection go out in no particular order",
        "one_to_one/waiting_calls.py",
        "        if isinstance(state, Waiting) or self._turn is not None:\n            return 0\n",
        "        if isinstance(state, Waiting):\n            return 0\n        return UNLIMITED\n",
        CLIENT,
    ),
    fault(
        "a waiting notification passes its turn on before it is queued",
        "one_to_one/waiting_calls.py",
        "            if method.kind is Kind.NOTIFICATION:\n                return await making",
        "            if False:\n                return await making",
        CLIENT,
    ),
    fault(
        "any number of calls wait for a connection",
        "one_to_one/waiting_calls.py",
        "if len(self._scopes) >= self._max_waiting:",
        "if False:",
        CLIENT,
    ),
    fault(
        "a waiting call is not ended when the grace time is over",
        "one_to_one/waiting_calls.py",
        "            self._wait_until(self._state.until)\n",
        "            pass\n",
        CLIENT,
        hangs=True,
    ),
    fault(
        "each failed attempt to connect prolongs the grace time",
        "one_to_one/waiting_calls.py",
        "        if math.isnan(self._lost_at):\n",
        "        if True:\n",
        CLIENT,
        hangs=True,
    ),
    fault(
        "calls wait for another connection after a refusal",
        "one_to_one/service_client.py",
        "isinstance(core.lifecycle.cause, Refused)",
        "False",
        CLIENT,
    ),
    fault(
        "calls of a handler wait behind others while its session closes",
        "one_to_one/waiting_calls.py",
        "if is_nested or self._queue.is_free:",
        "if self._queue.is_free:",
        CLIENT,
        hangs=True,
    ),
    fault(
        "law 15: a call that was not made because there was no connection has an unknown fate",
        "one_to_one/service_client.py",
        "    error.fate = Fate.NOT_STARTED\n",
        "",
        CLIENT,
    ),
    fault(
        "a new target changes the table that other sessions use, too",
        "one_to_one/service_client.py",
        "self._table = dict(self._make_table(session))",
        "self._table = self._make_table(session)",
        CLIENT,
    ),
    fault(
        "a new target waits for the next connection",
        "one_to_one/service_client.py",
        "        if session is not None:\n            table = made(session)",
        "        if False:\n            table = made(session)",
        CLIENT,
    ),
    fault(
        "a client is used in two Trio runs at once",
        "one_to_one/waiting_calls.py",
        "        self._owner.check()\n",
        "",
        CLIENT,
        hangs=True,
    ),
    fault(
        "a function that makes a target may wait for its own client forever",
        "one_to_one/waiting_calls.py",
        "state.maker is trio.lowlevel.current_task():",
        "False:",
        HANDLERS,
        hangs=True,
    ),
    fault(
        "an async function that makes a target may take any time",
        "one_to_one/connection_handler.py",
        "            seconds = self._limits.handshake_timeout\n",
        "            seconds = 1e9\n",
        HANDLERS,
        hangs=True,
    ),
    fault(
        "a handler listens before it has a target",
        "one_to_one/connection_handler.py",
        "        client.target = await self._target(client, parameters)\n        await client.listen(",
        "        await client.listen(",
        HANDLERS,
    ),
    fault(
        "the second of two handlers for one path replaces the first",
        "one_to_one/connection_handler.py",
        "        if handler.path in routes:\n",
        "        if False:\n",
        HANDLERS,
        hangs=True,
    ),
    fault(
        "a function that cannot make a target is noticed by the first client",
        "one_to_one/connection_handler.py",
        "        _check_target(make_target, path)\n",
        "",
        HANDLERS,
    ),
    fault(
        "a session over a forwarded channel does not wait for its resumable carrier",
        "channels/forwarding/driver.py",
        "        if carrier is None or self._failure is not None:\n            return False\n",
        "        if True:\n            return False\n",
        FORWARDED,
    ),
    fault(
        "each silent channel replaces the connection of all",
        "channels/forwarding/driver.py",
        "        if box.last_event == self._heard:",
        "        if True:",
        FORWARDED,
    ),
    fault(
        "a channel that is silent alone is never given up",
        "channels/forwarding/driver.py",
        "        return not was_overtaken\n",
        "        return True\n",
        FORWARDED,
        hangs=True,
    ),
)
