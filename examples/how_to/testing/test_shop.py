import pytest
import trio
import trio_rpc
from trio_rpc.testing import open_faulty_pair, open_session_pair

from shop import Shop, SoldOut, buy_all


async def test_a_service_is_an_ordinary_class():
    assert await buy_all(Shop({"tea": 3}), "tea") == 3


async def test_a_call_over_a_session_in_memory():
    async with open_session_pair({"shop": Shop({"tea": 1})}, None) as (_, session):
        shop = session.proxy("shop", Shop)
        assert await shop.buy("tea") == 0
        with pytest.raises(SoldOut):
            await shop.buy("tea")


async def test_an_hour_passes_at_once(autojump_clock):
    async with open_session_pair({"shop": Shop({})}, None) as (_, session):
        minutes = []
        await session.proxy("shop", Shop).deliver("tea", minutes.append)
    assert minutes == [60, 45, 30, 15]
    assert trio.current_time() == pytest.approx(60 * 60)


async def test_a_timeout_cancels_the_handler(autojump_clock):
    async with open_session_pair({"shop": Shop({})}, None) as (server, session):
        with trio.move_on_after(20 * 60) as patience:
            await session.proxy("shop", Shop).deliver("tea", lambda _: None)
        assert patience.cancelled_caught
        assert server.tree() == []  # nothing of the call still runs


async def test_a_connection_that_is_cut_during_a_call():
    async with (
        open_faulty_pair() as pair,
        open_session_pair(
            {"shop": Shop({})}, None, channels=(pair.first, pair.second), on_end="keep"
        ) as (_, session),
    ):
        with pytest.raises(trio_rpc.SessionBroken) as info:
            await session.proxy("shop", Shop).deliver("tea", lambda _: pair.link.cut())
        assert info.value.fate is trio_rpc.Fate.UNKNOWN


async def test_a_call_over_tcp():
    async with (
        trio_rpc.open_server({"shop": Shop({"tea": 1})}, "tcp://127.0.0.1:0") as server,
        trio_rpc.connect(server.urls[0]) as session,
    ):
        assert await session.proxy("shop", Shop).buy("tea") == 0
