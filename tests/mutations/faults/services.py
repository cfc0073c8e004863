"""Faults of services: signatures, marks, and exceptions that travel."""

from __future__ import annotations

from ..fault import fault

FAULTS_TEST = "services/test_faults.py"
TABLES = "services/test_tables.py"

FAULTS = (
    fault(
        "a lacking argument is left to the function",
        "services/signatures.py",
        "            if one.required and one.name not in bound and one not in by_position:\n",
        "            if False:\n",
        "services/test_signatures.py",
    ),
    fault(
        "an argument may be given by position and by name",
        "services/signatures.py",
        "            elif one in by_position:\n",
        "            elif False:\n",
        "services/test_signatures.py",
    ),
    fault(
        "too many arguments are cut off",
        "services/signatures.py",
        "        if len(args) > len(parameters) and self._extra_positional is None:\n",
        "        if False:\n",
        "services/test_signatures.py",
    ),
    fault(
        "the mark of an interface is lost by an override without one",
        "services/tables.py",
        "    for base in cls.__mro__:\n        for name, attribute in vars(base).items():\n",
        "    for base in cls.__mro__[:1]:\n        for name, attribute in vars(base).items():\n",
        TABLES,
    ),
    fault(
        "a class is served in place of its instance",
        "services/tables.py",
        "    if isinstance(obj, type):\n        raise TypeError",
        "    if False:\n        raise TypeError",
        TABLES,
    ),
    fault(
        "a service may have any name",
        "services/tables.py",
        '        if not isinstance(name, str) or not (name == "" or NAME.fullmatch(name)):\n',
        "        if not isinstance(name, str):\n",
        TABLES,
    ),
    fault(
        "two declared exceptions may have one name",
        "services/decorators.py",
        "    if len(set(names)) < len(set(raises)):\n",
        "    if False:\n",
        "services/test_decorators.py",
    ),
    fault(
        "a user's class KeyError is taken for the built-in one",
        "services/decorators.py",
        'return f"builtins.{name}" if getattr(builtins, name, None) is cls else name',
        'return f"builtins.{name}" if hasattr(builtins, name) else name',
        FAULTS_TEST,
    ),
    fault(
        "a group's leaves are not bounded where they are read",
        "services/error_maps.py",
        "        if self._leaves > MAX_LEAVES:\n",
        "        if False:\n",
        FAULTS_TEST,
    ),
    fault(
        "a group's leaves are not bounded where they are written",
        "services/error_maps.py",
        "            if self._leaves >= MAX_LEAVES:\n",
        "            if False:\n",
        FAULTS_TEST,
    ),
    fault(
        "an exception's text that fails hides the exception",
        "services/error_maps.py",
        "    try:\n        return str(exc)\n    except Exception:  # noqa: BLE001 - an error's text must not hide the error\n        return",
        "    try:\n        return str(exc)\n    except KeyError:  # noqa: BLE001 - an error's text must not hide the error\n        return",
        FAULTS_TEST,
    ),
    fault(
        "a RemoteCancelled of a call that never began says that it was stopped",
        "services/error_maps.py",
        "set_fate(exc, Fate.STOPPED if started else Fate.NOT_STARTED)",
        "set_fate(exc, Fate.STOPPED)",
        FAULTS_TEST,
    ),
    fault(
        "a proxy invents methods that its interface lacks",
        "services/proxies.py",
        "        if name not in self._marked:\n",
        "        if False:\n",
        "services/test_proxies.py",
    ),
    fault(
        "a proxy can be pickled",
        "services/proxies.py",
        '        raise TypeError("a proxy cannot be pickled or copied")\n',
        "        return object.__reduce__(self)\n",
        "services/test_proxies.py",
    ),
    fault(
        "an argument that could be a function or a stream is taken for a function",
        "session/calls/callbacks.py",
        "    if is_function or is_data:\n",
        "    if is_data and not is_function:\n",
        "session/test_lending.py",
    ),
    fault(
        "what is registered and looks alive travels as its fields",
        "wire/to_msgpack.py",
        "        return self.value(value.value if registered else value.instead, depth)\n",
        "        return self.value(value.instead, depth)\n",
        "session/test_lending.py",
    ),
    fault(
        "a notification that needs a function is served",
        "services/tables.py",
        "            if is_alive(signature.annotation(name)):\n",
        "            if False:\n",
        "services/test_never_sent.py",
    ),
)
