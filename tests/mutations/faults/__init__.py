"""The table of faults, one module for each area."""

from __future__ import annotations

from . import (
    bounds,
    channels,
    gateway,
    javascript,
    laws,
    meanings,
    nats,
    observing,
    one_pass,
    one_to_one,
    pools,
    races,
    registration,
    resumable,
    security,
    services,
    traces,
    wire,
)

AREAS = (
    laws,
    security,
    bounds,
    races,
    pools,
    channels,
    resumable,
    wire,
    services,
    traces,
    meanings,
    one_pass,
    gateway,
    javascript,
    one_to_one,
    registration,
    nats,
    observing,
)

FAULTS = tuple(one for area in AREAS for one in area.FAULTS)
"""All faults. Their descriptions are unique."""
