"""Each session can list its methods."""

from __future__ import annotations

import pytest

from trio_rpc.services.decorators import method, notification
from trio_rpc.services.introspection import DESCRIBE, with_introspection
from trio_rpc.services.tables import build_table


class Clock:
    @method(raises=(ValueError,))
    async def now(self, zone: str = "UTC") -> float:
        """Tell the time.

        A longer description follows.
        """
        return 0.0

    @notification
    async def wind(self): ...


def test_each_method_is_described():
    table = with_introspection(build_table({"clock": Clock()}))
    assert table[DESCRIBE].function() == [
        {
            "name": "clock.now",
            "kind": "method",
            "signature": "(zone: str = 'UTC') -> float",
            "doc": "Tell the time.",
            "raises": ["ValueError"],
        },
        {
            "name": "clock.wind",
            "kind": "notification",
            "signature": "()",
            "doc": "",
            "raises": [],
        },
    ]


def test_the_given_table_is_not_changed():
    given = build_table({"clock": Clock()})
    assert set(with_introspection(given)) - set(given) == {DESCRIBE}
    assert DESCRIBE not in given


def test_the_name_of_the_introspection_service_is_reserved():
    with pytest.raises(ValueError, match=r"'trio_rpc' is reserved: trio_rpc\.now cannot"):
        with_introspection(build_table({"trio_rpc": Clock()}))
    assert "trio_rpc2.now" in with_introspection(build_table({"trio_rpc2": Clock()}))


async def test_methods_can_be_listed_over_a_session():
    from trio_rpc.testing import open_session_pair

    async with open_session_pair(None, lambda _session: Clock()) as (ours, theirs):
        assert [each["name"] for each in await ours.call(DESCRIBE)] == ["now", "wind"]
        assert await theirs.call(DESCRIBE) == []
