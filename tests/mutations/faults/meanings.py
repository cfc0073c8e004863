"""Faults of reading annotations: those that can never be checked, aliases, and callbacks."""

from __future__ import annotations

from ..fault import fault

NEVER_CHECKED = "services/test_never_checked.py"

FAULTS = (
    fault(
        "a result that can never be checked is only refused at its caller",
        "services/tables.py",
        "        _said(signature.result_converter)\n",
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
        "a callback that says nothing definite gets plain values",
        "services/signatures.py",
        "        if not is_vaguer(annotation, said):\n",
        "        if annotation is not Any:\n",
        "session/test_callback_values.py",
    ),
)
