"""tests/session/test_two_looks.py over every transport."""

from __future__ import annotations

from suites import over_every_transport

globals().update(over_every_transport("test_two_looks"))
