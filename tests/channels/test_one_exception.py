"""One exception comes out where a nursery would raise a group."""

from __future__ import annotations

import pytest
import trio

from trio_rpc.util.one_exception import one_exception


async def test_law_16_the_one_exception_shows_no_group_and_keeps_its_context():
    first, second = KeyError("first"), ValueError("second")
    second.__context__ = first
    with pytest.raises(ValueError, match="second") as caught, one_exception():
        async with trio.open_nursery():
            raise second
    assert caught.value is second
    assert second.__context__ is first
