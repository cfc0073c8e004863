"""The steps of an account: which part of the code does which part of the work."""

from __future__ import annotations

__all__ = ["REST", "STEPS", "SYSTEM", "step_of"]

SYSTEM = "system calls: read, write, epoll"
REST = "the rest: the program itself, garbage"

SYSTEM_LINES = (
    "os.read",
    "os.write",
    "_epoll",
    "return fn(self._sock",
    "socket.recv",
    "socket.socket",
    "socket.accept",
)
"""Texts of the lines that are system calls."""

_CANCEL = "Trio: cancel scopes entered, left and cancelled (laws 2 and 6)"
_TASKS = "Trio: tasks and nurseries begun and ended (law 6)"
_DEADLINE = "Trio: the effective deadline of the caller (law 5)"
_WAKING = "Trio: a task sleeps, is woken and takes its step (law 16)"
_SOCKET = "Trio: waiting for the socket, connecting and accepting"
_ENCODE = "messages encoded, after a look at all values (laws 12 and 14)"
_DECODE = "messages decoded and checked (laws 12 and 14)"
_CHANNEL = "packets framed, cut, written and read (law 10)"
_PROTOCOL = "ids, states and credit of both halves (laws 4, 11 and 14)"
_QUEUE = "the queue of messages, and its bounds (laws 10 and 12)"
_CALLER = "calls in flight at the caller: context, table, end (laws 2 to 5)"
_CALLEE = "calls at the callee: arguments bound, context, handler's step (laws 4 and 9)"
_ITEMS = "items at the producer and the consumer (law 11)"
_READER = "the reader and the writer as tasks or turns (laws 9 and 10)"
_SESSION = "the session itself: made, opened, watched, ended (laws 6 and 15)"
_WEBSOCKET = "trio-websocket and wsproto"

STEPS = (
    SYSTEM,
    _SOCKET,
    _WAKING,
    _DEADLINE,
    _TASKS,
    _CANCEL,
    _WEBSOCKET,
    _ENCODE,
    _DECODE,
    _CHANNEL,
    _PROTOCOL,
    _QUEUE,
    _CALLER,
    _CALLEE,
    _ITEMS,
    _READER,
    _SESSION,
    REST,
)
"""All steps, in the order of the table."""

# The first entry that fits counts: the file begins with its path, and the function contains one of
# its words.
_PLACES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("trio/_core/_run.py", ("effective_deadline", "CancelScope.deadline"), _DEADLINE),
    ("trio/_core/_run.py", ("Cancel", "cancel", "abort"), _CANCEL),
    ("trio/_core/_run.py", ("ursery", "spawn", "task_exited", "__repr__"), _TASKS),
    ("trio/_core/_run.py", (), _WAKING),
    ("trio/_core/_traps.py", (), _WAKING),
    ("trio/_core/_generated_run.py", ("reschedule", "current"), _WAKING),
    ("trio/_util.py", (), _TASKS),
    ("trio/_core/_ki.py", (), _WAKING),
    ("trio/", (), _SOCKET),
    ("trio_websocket/", (), _WEBSOCKET),
    ("wsproto/", (), _WEBSOCKET),
    ("wire/codec.py", ("encode",), _ENCODE),
    ("wire/plain.py", (), _ENCODE),
    ("wire/to_msgpack.py", (), _ENCODE),
    ("wire/messages.py", ("to_wire",), _ENCODE),
    ("wire/parts.py", ("LargeBytes", "SplitMessage"), _DECODE),
    ("wire/parts.py", (), _ENCODE),
    ("wire/framing.py", (), _CHANNEL),
    ("wire/", (), _DECODE),
    ("channels/", (), _CHANNEL),
    ("util/unsent_budget.py", (), _QUEUE),
    ("protocol/outbox.py", (), _QUEUE),
    ("protocol/pieces.py", (), _DECODE),
    ("protocol/", (), _PROTOCOL),
    ("services/proxies.py", (), _CALLER),
    ("services/", (), _CALLEE),
    ("session/streams/", (), _ITEMS),
    ("session/calls/admission.py", (), _ITEMS),
    ("session/calls/incoming_call.py", (), _CALLEE),
    ("session/calls/eager.py", (), _CALLEE),
    ("session/calls/", (), _CALLER),
    ("session/session.py", ("invoke",), _CALLER),
    ("session/dispatch.py", (), _CALLEE),
    ("session/handler.py", (), _CALLEE),
    ("session/load.py", (), _CALLEE),
    ("session/reader.py", (), _READER),
    ("session/io/", (), _READER),
    ("benchmarks/", (), REST),
    ("", (), _SESSION),
)


def step_of(file: str, function: str, line: str) -> str:
    """Return the step that a line belongs to.

    Args:
        file: its file, relative to the package, or with the package's name for other packages.
        function: the qualified name of the function.
        line: its text.
    """
    if any(text in line for text in SYSTEM_LINES):
        return SYSTEM
    for start, words, step in _PLACES:
        if file.startswith(start) and (not words or any(word in function for word in words)):
            return step
    return REST
