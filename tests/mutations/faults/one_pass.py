"""Faults of encoding and decoding plain values in one pass."""

from __future__ import annotations

from ..fault import fault

PLAIN = "wire/test_wire_plain.py"
MANY = "wire/test_wire_many.py"
STREAMS = "protocol/test_protocol_streams.py"
VALUES = "services/test_one_pass.py"
CALLS = "session/test_one_pass_calls.py"

FAULTS = (
    fault(
        "any key of a dict in a small message is plain",
        "wire/plain.py",
        "            if not _KEYS.issuperset(map(type, one)):\n",
        "            if False:\n",
        PLAIN,
    ),
    fault(
        "any key of a dict in a large message is plain",
        "wire/plain.py",
        "    return kinds.count(str) == number or _KEYS.issuperset(kinds)\n",
        "    return True\n",
        PLAIN,
    ),
    fault(
        "a registered class in a large message is sent as a map",
        "wire/plain.py",
        "                fields = None if registry.for_class(kind) is not None else fields_of(kind)\n",
        "                fields = fields_of(kind)\n",
        PLAIN,
    ),
    fault(
        "a class whose attributes are computed is plain",
        "wire/plain.py",
        '    if inspect.getattr_static(cls, "__getattribute__") is not object.__getattribute__:\n',
        "    if False:\n",
        PLAIN,
    ),
    fault(
        "a class variable counts as a field",
        "wire/plain.py",
        "    return names if len(names) == len(cls.__dataclass_fields__) else ()\n",
        "    return names\n",
        PLAIN,
    ),
    fault(
        "a small message may be nested too deeply",
        "wire/plain.py",
        "    left = FEW if limits.max_depth > FEW else limits.max_depth - 1  # so few cannot be too deep\n",
        "    left = FEW\n",
        PLAIN,
    ),
    fault(
        "a key that is given twice is accepted if the type is known",
        "wire/one_pass.py",
        "        if has_maps and not _is_flat(value) and ENCODER.encode(value) != bytes(raw):\n",
        "        if False:\n",
        VALUES,
    ),
    fault(
        "a field that may be anything takes an extension",
        "wire/one_pass.py",
        "        if is_open and not is_plain((value,), self.registry, self.limits):\n",
        "        if False:\n",
        VALUES,
    ),
    fault(
        "a value that was read in one pass may be nested too deeply",
        "wire/one_pass.py",
        "        if depth >= self.limits.max_depth:  # the message itself is one more level\n",
        "        if False:\n",
        VALUES,
    ),
    fault(
        "the context may be nested too deeply",
        "wire/one_pass.py",
        "reader.limits.max_depth < PLAIN_DEPTH + 2 or ",
        "",
        VALUES,
    ),
    fault(
        "a key that is given twice in the context is accepted",
        "wire/one_pass.py",
        "PLAIN_DEPTH + 2 or ENCODER.encode(self) != packet:\n",
        "PLAIN_DEPTH + 2:\n",
        VALUES,
    ),
    fault(
        "code of users runs before the protocol has accepted the message",
        "services/shapes.py",
        '        hasattr(cls, "__post_init__") or fields_of(cls) is None\n',
        "        fields_of(cls) is None\n",
        VALUES,
    ),
    fault(
        "a call that has waited gets the types of the handler that is gone",
        "session/handler.py",
        "    if shape is not None and shape is not method.signature.shape(len(args)):\n",
        "    if False:\n",
        CALLS,
    ),
    fault(
        "a key that is given twice is accepted in a packet of several messages",
        "wire/many.py",
        "        if ENCODER.encode(read) != array:\n",
        "        if False:\n",
        MANY,
    ),
    fault(
        "the size of an item is that of all messages before it as well",
        "wire/many.py",
        "        sizes.append(end - start)\n",
        "        sizes.append(end)\n",
        MANY,
    ),
    fault(
        "a packet of several messages is read at once, whatever its size",
        "wire/codec.py",
        "min(MOST, limits.max_nodes) if limits.max_depth >= DEPTH else 0\n",
        "limits.max_nodes if limits.max_depth >= DEPTH else 0\n",
        MANY,
    ),
    fault(
        "messages of a packet may be nested deeper than the limit",
        "wire/codec.py",
        "min(MOST, limits.max_nodes) if limits.max_depth >= DEPTH else 0\n",
        "min(MOST, limits.max_nodes)\n",
        MANY,
    ),
    fault(
        "items that follow each other need credit only for the first",
        "protocol/streams.py",
        "            or window.items < len(run.items)\n",
        "            or window.items < 1\n",
        STREAMS,
    ),
    fault(
        "every item in a run of items may overdraw the bytes",
        "protocol/streams.py",
        "            or window.size <= run.size - run.items[-1].size\n",
        "            or window.size <= 0\n",
        STREAMS,
    ),
    fault(
        "items that follow each other use no bytes of the credit",
        "protocol/streams.py",
        "        window.size -= run.size\n",
        "",
        STREAMS,
    ),
    fault(
        "items of any calls that follow each other are one event",
        "protocol/streams.py",
        "            if message.id != call or len(items) >= MOST_IN_RUN:\n",
        "            if len(items) >= MOST_IN_RUN:\n",
        STREAMS,
    ),
)
