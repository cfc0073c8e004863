"""The table of faults, one module for each area."""

from __future__ import annotations

from . import laws

FAULTS = (*laws.FAULTS,)
"""All of them. Their descriptions are unique."""
