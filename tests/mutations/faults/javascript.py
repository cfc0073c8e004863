"""Faults of session.js."""

from __future__ import annotations

from ..fault import fault

VECTORS = "js/test_js_vectors.py::test_all_vectors_hold_in_javascript"
SESSION = "js/test_js_session.py"
ABORT = f"{SESSION}::test_an_abort_settles_when_the_handler_has_ended"
VALUES = f"{SESSION}::test_values_pass_through_python_unchanged"
LAZY = f"{SESSION}::test_a_call_that_a_handler_has_not_awaited_ends_before_its_answer"
ODD = f"{SESSION}::test_any_value_that_a_page_throws_is_the_answer_of_that_call_alone"
TURNS = "js/test_js_turns.py"
LEAVING = "js/test_js_leaving.py"
RESUMED = "js/test_js_resuming.py"
RESUMING = f"{RESUMED}::test_calls_streams_and_callbacks_notice_only_the_delay"

ODD_PEERS = "js/test_js_odd.py"

FAULTS = (
    fault(
        "a set of functions ends the session in JavaScript",
        "js/values.js",
        '    case "function": return',
        '    case "none": return',
        ODD_PEERS,
    ),
    fault(
        "the keys of many levels take time without a bound in JavaScript",
        "js/values.js",
        'keys.map((key) => `${key.length} ${key}`).join("")',
        "JSON.stringify(keys)",
        ODD_PEERS,
    ),
    fault(
        "a callback in JavaScript gets null for an argument that cannot be read",
        "js/incoming.js",
        "    if (call.request.unreadable) return",
        "    if (false) return",
        ODD_PEERS,
    ),
    fault(
        "a started value that cannot be read is null in JavaScript",
        "js/core.js",
        "    if (unreadable) call.cancel(unreadable);\n    else call.onStarted",
        "    call.onStarted",
        ODD_PEERS,
    ),
    fault(
        "law 4: an error with an odd name leaves its call without an answer in JavaScript",
        "js/error_maps.js",
        "[forPeople(String(name), 1000), ",
        "[String(name), ",
        ODD_PEERS,
    ),
    fault(
        "a call nested too deeply after Goodbye is answered in JavaScript",
        "js/protocol.js",
        "    if (this.#isLate(context)) {\n      this.replyError",
        "    if (!(context.depth > MAX_DEPTH_OF_CALLS) && this.#isLate(context)) {\n      this.replyError",
        VECTORS,
    ),
    fault(
        "an error whose message cannot be read leaves its call without an answer in JavaScript",
        "js/error_maps.js",
        "  return guarded(() => mapOf(error), mapOf",
        "  return mapOf(error, mapOf",
        ODD,
    ),
    fault(
        "law 2: a cancelled call in JavaScript settles before its handler has ended",
        "js/outgoing.js",
        "    if (this.#options.abandonOnAbort) this.#settle(reason);\n",
        "    this.#settle(reason);\n",
        ABORT,
    ),
    fault(
        "law 3: a result that crosses the abort of its call is thrown away in JavaScript",
        "js/outgoing.js",
        "    if (message.error === undefined) return this.#settle(undefined, message.result);\n",
        "    if (message.error === undefined) return this.#settle(this.reason, message.result);\n",
        ABORT,
    ),
    fault(
        "items that have arrived hold up a page",
        "js/items.js",
        "        if (!turn) return",
        "        if (!turn || true) return",
        f"{TURNS}::test_a_page_has_a_turn_after_8_ms_of_work_on_items",
    ),
    fault(
        "messages of one packet hold up a page",
        "js/core.js",
        "        if (turn) await turn;\n",
        "",
        f"{TURNS}::test_a_page_has_a_turn_after_8_ms_of_work_in_handlers",
    ),
    fault(
        "a map's key __proto__ sets the prototype in JavaScript",
        "js/decoder.js",
        '  if (key === "__proto__") {\n',
        '  if (key === "__proto") {\n',
        VALUES,
    ),
    fault(
        "an integer beyond 2**53 is rounded in JavaScript",
        "js/decoder.js",
        "  return Number.isSafeInteger(number) ? number : big;\n",
        "  return number;\n",
        VECTORS,
    ),
    fault(
        "law 1: a call from a handler in JavaScript outlives it",
        "js/incoming.js",
        "    if (this.#children.size) await this.#endChildren();\n",
        "",
        LAZY,
    ),
    fault(
        "an iterator that throws in JavaScript ends its session",
        "js/incoming.js",
        "    call.run(entryOf(() => {}), () => (reference.iterator ??= iteratorOf(reference.target)));\n",
        "    reference.iterator ??= iteratorOf(reference.target);\n"
        "    call.run(entryOf(() => {}), () => reference.iterator);\n",
        ODD,
    ),
    fault(
        "a page that is unloaded waits for its functions",
        "js/core.js",
        "    this.calls.abandon();\n",
        "    return;\n",
        f"{LEAVING}::test_a_page_that_is_unloaded_does_not_wait_for_its_functions",
    ),
    fault(
        "a page that is unloaded answers a call twice",
        "js/incoming.js",
        "    if (this.#hasEnded) return; // it",
        "    // it",
        f"{LEAVING}::test_a_page_that_is_unloaded_does_not_wait_for_room_to_send",
    ),
    fault(
        "a session in JavaScript sends packets after its end",
        "js/core.js",
        "!this.#hungUp && (packet",
        "(packet",
        f"{LEAVING}::test_a_handler_that_goes_on_after_that_sends_nothing",
    ),
    fault(
        "a session in JavaScript waits for a server that has left",
        "js/resumable.js",
        "(this.#end === null || this.#carrier)",
        "this.#end?.error == null",
        f"{RESUMED}::test_a_session_is_closed_as_soon_as_its_server_has_ended_in_good_order",
    ),
    fault(
        "a resumed session in JavaScript sends a packet twice",
        "js/resumable.js",
        "      this.#confirm(answer.ack);\n",
        "",
        RESUMING,
    ),
)
