"""Every channel passes the suite that we give to users, and the suite finds what is broken."""

from __future__ import annotations

import pytest
import trio

from trio_rpc.channels.memory import MemoryChannel
from trio_rpc.testing import check_channel, memory_channel_pair


async def test_every_channel_conforms(maker):  # B43, B60
    await check_channel(maker)
