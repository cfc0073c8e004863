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
)
