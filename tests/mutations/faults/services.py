"""Faults of services: signatures, decorators, and exceptions on the wire."""

from __future__ import annotations

from ..fault import fault

FAULTS_TEST = "services/test_faults.py"
TABLES = "services/test_tables.py"

FAULTS = (
    fault(
        "an error about a Python value names its types as JSON does",
        "services/complaints.py",
        "        return text if in_json else _in_python(text)\n",
        "        return text\n",
        "services/test_signatures.py",
    ),
    fault(
        "an option that does not exist is reported for a function that the user did not call",
        "client.py",
        "    check_options(connect_in, options)\n",
        "",
        "session/test_options_checked.py",
    ),
    fault(
        "a callback whose result cannot be awaited is accepted",
        "services/lending.py",
        "        if said.is_plain:\n",
        "        if False:\n",
        "services/test_unsendable_results.py",
    ),
    fault(
        "a missing argument is not noticed before the function is called",
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
        "extra arguments are dropped",
        "services/signatures.py",
        "        if len(args) > len(parameters) and self._extra_positional is None:\n",
        "        if False:\n",
        "services/test_signatures.py",
    ),
    fault(
        "an override without a decorator loses that of its interface",
        "services/tables.py",
        "    for base in cls.__mro__:\n        for name, attribute in vars(base).items():\n",
        "    for base in cls.__mro__[:1]:\n        for name, attribute in vars(base).items():\n",
        TABLES,
    ),
    fault(
        "a class is served instead of an instance",
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
        "a user's class KeyError is confused with the built-in one",
        "services/decorators.py",
        'return f"builtins.{name}" if getattr(builtins, name, None) is cls else name',
        'return f"builtins.{name}" if hasattr(builtins, name) else name',
        FAULTS_TEST,
    ),
    fault(
        "the number of exceptions in a received group has no limit",
        "services/error_maps.py",
        "        if self._leaves > MAX_LEAVES:\n",
        "        if False:\n",
        FAULTS_TEST,
    ),
    fault(
        "the number of exceptions in a sent group has no limit",
        "services/error_maps.py",
        "            if self._leaves >= MAX_LEAVES:\n",
        "            if False:\n",
        FAULTS_TEST,
    ),
    fault(
        "an exception whose str() fails is hidden by that failure",
        "services/error_maps.py",
        "    try:\n        return str(exc)\n    except Exception:  # noqa: BLE001 - an error's text must not hide the error\n        return",
        "    try:\n        return str(exc)\n    except KeyError:  # noqa: BLE001 - an error's text must not hide the error\n        return",
        FAULTS_TEST,
    ),
    fault(
        "a RemoteCancelled of a call that never started has the fate STOPPED",
        "services/error_maps.py",
        "set_fate(exc, Fate.STOPPED if started else Fate.NOT_STARTED)",
        "set_fate(exc, Fate.STOPPED)",
        FAULTS_TEST,
    ),
    fault(
        "a proxy accepts methods that its interface lacks",
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
        "session/test_argument_kinds.py",
    ),
    fault(
        "a registered async iterable is sent as its fields",
        "wire/to_msgpack.py",
        "        return self.value(value.value if registered else value.instead, depth)\n",
        "        return self.value(value.instead, depth)\n",
        "session/test_argument_kinds.py",
    ),
    fault(
        "a notification with a callback parameter is served",
        "services/tables.py",
        "            if is_alive(signature.annotation(name)):\n",
        "            if False:\n",
        "services/test_unsendable_results.py",
    ),
    fault(
        "an error that passes through several calls names each of them",
        "errors.py",
        "        if self.message and self.type_name == _REMOTE_ERROR:\n",
        "        if False:\n",
        "services/test_faults.py",
    ),
)
