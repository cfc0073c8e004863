"""gRPC's interoperability cases over each transport. tests/js runs them with JavaScript."""

from __future__ import annotations

import pytest
from helpers.interop import CASES, SOAK_SESSIONS, InteropService, large_unary


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_interop(case, session_pair):
    service = InteropService()
    async with session_pair({}, {"test": service}) as (session, _):
        await case(session)
        assert not service.running
        await session.ping()


async def test_interop_channel_soak(session_pair):
    for _ in range(SOAK_SESSIONS):
        async with session_pair({}, {"test": InteropService()}) as (session, _):
            await large_unary(session)
