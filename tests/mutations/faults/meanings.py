"""Faults of reading annotations: those that can never be checked, aliases, and callbacks."""

from __future__ import annotations

from ..fault import fault

END_RECORDS = "session/test_end_records.py"
NEVER_CHECKED = "services/test_never_checked.py"

FAULTS = (
    fault(
        "an enum that has None as a value may be optional",
        "services/special.py",
        "    if annotation in (None, types.NoneType):\n",
        "    if False:\n",
        "services/test_odd_values.py",
    ),
    fault(
        "a set of dataclasses cannot be sent",
        "wire/to_msgpack.py",
        "            if self._in_key:\n                raise\n            self._nodes",
        "            raise\n            self._nodes",
        "wire/test_wire_lowering.py",
    ),
    fault(
        "the attempt to send a set as a set counts towards the limits",
        "wire/to_msgpack.py",
        "            self._nodes, self._extension_bytes, self._references = before\n",
        "",
        "wire/test_wire_lowering.py",
    ),
    fault(
        "the zone of a time is not checked",
        "services/constraints.py",
        "    if zones:\n",
        "    if False:\n",
        "services/test_constraints.py",
    ),
    fault(
        "a member of an enum whose value is a list never arrives",
        "services/special.py",
        "            value = value if value in lists else _tuples(value)\n",
        "            value = _tuples(value)\n",
        "services/test_enums.py",
    ),
    fault(
        "the reason that a session is closed with is not sent",
        "session/lifecycle.py",
        '            self._protocol.goodbye("done", self._goodbye_text)\n',
        '            self._protocol.goodbye("done", "closed by the other end")\n',
        END_RECORDS,
    ),
    fault(
        "the last reason counts if a session is closed twice",
        "session/lifecycle.py",
        "            elif reason and not self.stage.is_closed_by_us:\n",
        "            elif reason:\n",
        END_RECORDS,
    ),
    fault(
        "a close that is cancelled does not say why",
        "session/lifecycle.py",
        '        return "done", self._goodbye_text if self.stage.was_open else self._last_text\n',
        '        return "done", self._last_text if not self.stage.was_open else "closed"\n',
        END_RECORDS,
    ),
    fault(
        "the reason of an end has as many lines as the other end sends",
        "session/lifecycle.py",
        "        text = one_line(str(self.error(Fate.UNKNOWN)), MAX_REASON)\n",
        "        text = str(self.error(Fate.UNKNOWN))\n",
        END_RECORDS,
    ),
    fault(
        "a parameter that takes an open file is served",
        "services/special.py",
        "        (typing.TextIO, io.TextIOBase, io.TextIOWrapper),\n",
        "        (typing.TextIO,),\n",
        "services/test_types.py",
    ),
    fault(
        "a result that can never be checked is only refused at its caller",
        "services/tables.py",
        "        _resolved_or_any(signature.result_converter)\n",
        "        pass\n",
        NEVER_CHECKED,
    ),
    fault(
        "a parameter to send on is served",
        "services/lending.py",
        "        if cls in _SENDING:\n",
        "        if False:\n",
        NEVER_CHECKED,
    ),
    fault(
        "text in an alias is resolved where the alias is used",
        "services/aliases.py",
        "    if not _has_text(value):\n",
        "    if True:\n",
        "session/test_aliases.py",
    ),
    fault(
        "a callback without definite annotations gets plain values",
        "services/signatures.py",
        "        if not is_vaguer(annotation, given):\n",
        "        if annotation is not Any:\n",
        "session/test_callback_values.py",
    ),
    fault(
        "a handler that is annotated never to return may return",
        "services/tables.py",
        '    if is_never(awaited(_resolved_or_any(signature.annotation, "return"))):\n',
        "    if False:\n",
        "session/test_never.py",
    ),
    fault(
        "a filter may run a handler twice",
        "session/handler.py",
        "        if call.has_begun:\n",
        "        if False:\n",
        "session/test_never.py",
    ),
    fault(
        "a session of a run that is over is reported as in use in another thread",
        "session/owner.py",
        "            if self.is_over:\n",
        "            if False:\n",
        "session/test_owner.py",
    ),
    fault(
        "an enum is taken for its value in a Literal",
        "services/special.py",
        "        if first is not member and type(first) is not type(member):\n",
        "        if False:\n",
        "services/test_odd_values.py",
    ),
    fault(
        "the other keys of a TypedDict vanish",
        "services/records.py",
        "            if read_more is not None:\n",
        "            if False:\n",
        "services/test_odd_values.py",
    ),
    fault(
        "a gateway does not look into the alias of a callback",
        "gateway/server/forms.py",
        "    annotation = _one_function(annotation)\n",
        "    annotation = annotation\n",
        "gateway/test_values.py",
    ),
    fault(
        "the result of a callback that returns None is sent",
        "session/calls/callbacks.py",
        "        drops_result=given.result in (None, types.NoneType),\n",
        "        drops_result=False,\n",
        "session/test_callback_values.py",
    ),
    fault(
        "a filter may run a handler after the call has been answered",
        "session/handler.py",
        "        if is_over:\n",
        "        if False:\n",
        "session/test_filter_refusals.py",
    ),
    fault(
        "a stream that a filter has not opened looks complete",
        "session/handler.py",
        "    if not call.has_begun and (call.sender is not None or call.held_scope is not None):\n",
        "    if False:\n",
        "session/test_filter_refusals.py",
    ),
    fault(
        "a filter of the caller may open a block after it has returned",
        "session/calls/filters.py",
        "            if is_over:\n",
        "            if False:\n",
        "session/test_filter_refusals.py",
    ),
)
