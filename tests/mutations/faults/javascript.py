"""Faults of session.js."""

from __future__ import annotations

from ..fault import fault

VECTORS = "js/test_js_vectors.py"
LAWS = "js/test_js_laws.py"
SESSION = "js/test_js_session.py"
RESUMING = "js/test_js_resuming.py"

FAULTS = (
    fault(
        "law 2: a cancelled call in JavaScript settles before its handler has ended",
        "js/outgoing.js",
        "    if (this.#options.abandonOnAbort) this.#settle(reason);\n",
        "    this.#settle(reason);\n",
        LAWS,
    ),
    fault(
        "law 3: a result that crosses the abort of its call is thrown away in JavaScript",
        "js/outgoing.js",
        "    if (message.error === undefined) return this.#settle(undefined, message.result);\n",
        "    if (message.error === undefined) return this.#settle(this.reason, message.result);\n",
        LAWS,
    ),
    fault(
        "a map's key __proto__ sets the prototype in JavaScript",
        "js/decoder.js",
        '  if (key === "__proto__") {\n',
        '  if (key === "__proto") {\n',
        SESSION,
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
        SESSION,
    ),
    fault(
        "an iterator that throws in JavaScript ends its session",
        "js/incoming.js",
        "    call.run(entryOf(() => {}), () => (reference.iterator ??= iteratorOf(reference.target)));\n",
        "    reference.iterator ??= iteratorOf(reference.target);\n"
        "    call.run(entryOf(() => {}), () => reference.iterator);\n",
        SESSION,
    ),
    fault(
        "a resumed session in JavaScript sends a packet twice",
        "js/resumable.js",
        "      this.#confirm(answer.ack);\n",
        "",
        RESUMING,
    ),
)
