"""Faults in traces, and in the filters of callbacks and pulls."""

from __future__ import annotations

from ..fault import fault

TRACE = "session/test_trace.py"
DETAILS = "session/test_trace_details.py"
PULLS = "session/test_pull_filters.py"
JOINING = "tracing/test_joining.py"

FAULTS = (
    fault(
        "a trace that raises takes events from the next one",
        "tracing/printing.py",
        "            errors.append(exc)\n",
        "            raise\n",
        "session/test_trace_details.py",
    ),
    fault(
        "of several traces all get the payloads that one has asked for",
        "tracing/printing.py",
        'replace(event, payload=b"")',
        "event",
        "session/test_trace_details.py",
    ),
    fault(
        "an async function is accepted as a trace",
        "session/options.py",
        "        if self.trace is not DEFAULT_TRACE and is_coroutine_function(self.trace):\n",
        "        if False:\n",
        "session/test_trace_details.py",
    ),
    fault(
        "a session is closed with a grace that is not a time",
        "session/lifecycle.py",
        '            check_not_negative("grace", grace)\n',
        "            pass\n",
        "session/test_end_records.py",
    ),
    fault(
        "a trace that raises breaks the session",
        "session/traced/tracer.py",
        "            except Exception as exc:  # noqa: BLE001 - a trace must not break the session\n",
        "            except KeyError as exc:\n",
        TRACE,
    ),
    fault(
        "each error of a trace is logged",
        "session/traced/tracer.py",
        "        if not self._has_failed:\n",
        "        if True:\n",
        TRACE,
    ),
    fault(
        "the steps of a call are passed on while it is being queued",
        "session/traced/traced_protocol.py",
        "        self._tracer.note(4 if kind in _CALLS else 13, traced)\n",
        "        self._tracer.note(4 if kind in _CALLS else 13, traced)\n"
        "        self._tracer.passed_on()\n",
        DETAILS,
    ),
    fault(
        "a message counts as sent only after send has returned",
        "session/traced/traced_writer.py",
        "        if size:\n",
        "        if not size:\n",
        DETAILS,
    ),
    fault(
        "the last piece of a call does not send it",
        "session/traced/traced_protocol.py",
        "            if is_last:\n                self._note_step(",
        "            if False:\n                self._note_step(",
        TRACE,
    ),
    fault(
        "the size of a whole message is that of its last piece",
        "session/traced/traced_protocol.py",
        "            size, self._bytes_in_pieces, self._is_whole = self._bytes_in_pieces, 0, False\n",
        "            size, self._bytes_in_pieces, self._is_whole = 1, 0, False\n",
        TRACE,
    ),
    fault(
        "a filter that proceeds twice begins two traces",
        "session/traced/tracer.py",
        '        return Traced(view.number, method, False, None, "new")\n',
        "        return self.begin(method, is_incoming=False)\n",
        DETAILS,
    ),
    fault(
        "the end of the session wakes no traced caller",
        "session/traced/traced_calls.py",
        '            self._woken(call, "session over")\n',
        "            pass\n",
        DETAILS,
    ),
    fault(
        "payloads are in every log of messages",
        "session/traced/tracer.py",
        '        data = bytes(payload) if self._wants_payloads else b""\n',
        "        data = bytes(payload)\n",
        TRACE,
    ),
    fault(
        "a peer's name of a method is printed as it is",
        "tracing/printing.py",
        "    return text if text.isprintable() else ascii(text)[1:-1]\n",
        "    return text\n",
        DETAILS,
    ),
    fault(
        "each end has its own id of the session",
        "protocol/hello.py",
        '    return "-".join(sorted(filter(None, (ours, theirs)))) or None\n',
        '    return "-".join(filter(None, (ours, theirs))) or None\n',
        "protocol/test_protocol_session_id.py",
    ),
    fault(
        "any text may be a part of a session's id",
        "protocol/hello.py",
        "    session = part if type(part) is str and _PART.fullmatch(part) else",
        "    session = part if type(part) is str else",
        "protocol/test_protocol_session_id.py",
    ),
    fault(
        "calls of both directions with the same id are joined",
        "tracing/joining.py",
        "event.is_incoming != is_second",
        "False",
        JOINING,
    ),
    fault(
        "a joined call has no first step",
        "tracing/joining.py",
        "        if event.step == 2 and numbered in begun:\n",
        "        if False:\n",
        JOINING,
    ),
    fault(
        "callbacks do not pass the filters of the end that calls them",
        "session/streams/references.py",
        "        if not session.is_filtered:\n            return await request()\n",
        "        if True:\n            return await request()\n",
        "session/test_callback_filters.py",
    ),
    fault(
        "pulls do not pass the filters of the end that pulls",
        "session/streams/references.py",
        "        if not session.is_filtered:\n            return await open_pull()\n",
        "        if True:\n            return await open_pull()\n",
        PULLS,
    ),
    fault(
        "a consumer does not wait for the filters of its stream",
        "session/streams/items.py",
        "        if self.filtered is not None and call.answer is not None:\n",
        "        if False:\n",
        PULLS,
    ),
    fault(
        "a consumer is not woken when a filter closes its stream",
        "session/streams/pulls.py",
        "                pull.wake()  # the consumer, since only one task can wait in a call\n",
        "",
        PULLS,
        hangs=True,
    ),
    fault(
        "the filters of a pull outlive its handler",
        "session/streams/items.py",
        '            self.filtered.cancel(f"the handler of {owner} has ended")\n',
        "            pass\n",
        PULLS,
        hangs=True,
    ),
    fault(
        "the id of an outgoing call is not shown to its filters",
        "session/calls/outgoing.py",
        "            view.id = call_id\n",
        "            pass\n",
        "session/test_callback_filters.py",
    ),
    fault(
        "the environment variable is ignored",
        "tracing/default.py",
        '    if wanted in ("", "0"):\n',
        "    if True:\n",
        "tracing/test_traced_programs.py",
    ),
)
