"""Faults of the wire: bytes, values, and which message may follow which."""

from __future__ import annotations

from ..fault import fault

CALLS = "protocol/test_protocol_calls.py"
OUTBOX = "protocol/test_protocol_outbox.py"
STATES = "protocol/test_protocol_states.py"

FAULTS = (
    fault(
        "registry tag 127 cannot be registered",
        "wire/registry.py",
        "LAST_TAG = 127",
        "LAST_TAG = 126",
        "wire/test_wire_registry.py",
    ),
    fault(
        "registry tag 64 cannot be registered",
        "wire/registry.py",
        "FIRST_TAG = 64",
        "FIRST_TAG = 65",
        "wire/test_wire_registry.py",
    ),
    fault(
        "a tag may be given twice",
        "wire/registry.py",
        "        if tag in self._by_tag:\n",
        "        if False:\n",
        "wire/test_wire_registry.py",
    ),
    fault(
        "a frozenset arrives as a set",
        "wire/codec.py",
        "return made if code == SET else frozenset(made)",
        "return made",
        "wire/test_wire_roundtrip.py",
    ),
    fault(
        "a map may have a key twice",
        "wire/codec.py",
        "    if len(made) != len(pairs):\n",
        "    if False:\n",
        "wire/test_wire_malformed.py",
    ),
    fault(
        "something may follow the value in an extension",
        "wire/codec.py",
        "            return self._unpack(data)\n        except msgpack.ExtraData:\n            raise DecodeError(TRAILING) from None\n        finally:",
        "            return self._unpack(data)\n        except msgpack.ExtraData as extra:\n            return extra.unpacked\n        finally:",
        "wire/test_wire_malformed.py",
    ),
    fault(
        "references in messages that carry none are taken",
        "wire/codec.py",
        "        elif found:\n            raise DecodeError",
        "        elif False:\n            raise DecodeError",
        "wire/test_wire_malformed.py",
        "wire/test_wire_refusals.py",
    ),
    fault(
        "another version of the protocol is spoken to",
        "protocol/protocol.py",
        "        if version is not None and version != m.PROTOCOL_VERSION:\n",
        "        if False:\n",
        "protocol/test_protocol_bad_input.py",
        "session/test_opening.py",
    ),
    fault(
        "a Goodbye overtakes a large call",
        "protocol/outbox.py",
        "        if any(large.call == NOTHING for large in self._large):\n",
        "        if False:\n",
        OUTBOX,
    ),
    fault(
        "an item passes a large one of its own stream",
        "protocol/outbox.py",
        "        if len(data) > self._max_small or (call and self._large and self._is_behind(call)):\n",
        "        if len(data) > self._max_small:\n",
        OUTBOX,
    ),
    fault(
        "a large message stops small ones",
        "protocol/outbox.py",
        "            limit = share\n        return used\n",
        "            break\n        return used\n",
        OUTBOX,
    ),
    fault(
        "a withdrawn large message leaves its half at the receiver",
        "protocol/outbox.py",
        "        if large.sent:\n            self._dropped = _DROP\n",
        "",
        OUTBOX,
    ),
    fault(
        "a Request that has left is said to be taken back",
        "protocol/outbox.py",
        "        if call <= self._last_small_request:\n            return False\n",
        "        if call <= self._last_small_request:\n            return True\n",
        OUTBOX,
        CALLS,
    ),
    fault(
        "a late Reply to an abandoned call ends the session",
        "protocol/protocol.py",
        "            self.outgoing[call] = Outgoing.ABANDONED\n",
        "            del self.outgoing[call]\n",
        CALLS,
    ),
    fault(
        "a Reply to a call that is not in flight is taken",
        "protocol/protocol.py",
        '        if state is None:\n            raise DecodeError(\n                f"{type(message).__name__} to call',
        '        if state is None:\n            state = _ABANDONED\n        if state is None:\n            raise DecodeError(\n                f"{type(message).__name__} to call',
        "protocol/test_protocol_bad_input.py",
    ),
    fault(
        "a late notification's credit is not given back",
        "protocol/protocol.py",
        "            self.grant_notifications(1)  # no handler will end and do it\n",
        "",
        CALLS,
        STATES,
    ),
    fault(
        "an item of a call that was cancelled is sent",
        "protocol/protocol.py",
        "        if self.incoming[call] is _RUNNING:\n            self._queue(m.Item, data, call=call)\n",
        "        self._queue(m.Item, data, call=call)\n",
        "protocol/test_protocol_streams.py",
    ),
    fault(
        "credentials that cannot be read are taken for none",
        "protocol/protocol.py",
        "        if message.problem is not None:  # the application",
        "        if False:  # the application",
        "session/test_unreadable_values.py",
    ),
    fault(
        "an exception is made of what could not be read",
        "services/error_maps.py",
        "        if self._problem is not None:\n",
        "        if False:\n",
        "session/test_unreadable_values.py",
    ),
    fault(
        "a Goodbye that tells of a protocol error is taken for an orderly end",
        "session/driver.py",
        'if message.code == "protocol_error":',
        "if False:",
        "session/test_goodbye_codes.py",
    ),
    fault(
        "an id may be in flight twice",
        "protocol/protocol.py",
        "        if request.id in incoming:\n",
        "        if False:\n",
        "protocol/test_protocol_bad_input.py",
    ),
    fault(
        "a LastPiece without bytes takes nothing back",
        "protocol/protocol.py",
        "            self._pieces.drop()\n            return None\n",
        "            return None\n",
        "protocol/test_protocol_bad_input.py",
    ),
    fault(
        "a Credit for items is not checked against what was sent",
        "protocol/streams.py",
        "        if window.items > window.most_items or window.size > window.most_size:\n",
        "        if window.items > window.most_items:\n",
        "protocol/test_protocol_streams.py",
    ),
)
