"""Faults of encoding and decoding plain values in one pass."""

from __future__ import annotations

from ..fault import fault

PLAIN = "wire/test_wire_plain.py"
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
        "the arguments by name may be nested too deeply",
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
)
