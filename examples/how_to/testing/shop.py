from collections.abc import Awaitable, Callable

import trio
import trio_rpc


class SoldOut(Exception):
    pass


class Shop:
    def __init__(self, stock: dict[str, int]) -> None:
        self.stock = stock

    @trio_rpc.method(raises=(SoldOut,))
    async def buy(self, item: str) -> int:
        """Sell one item, and return how many are left."""
        if not self.stock.get(item):
            raise SoldOut(item)
        self.stock[item] -= 1
        return self.stock[item]

    @trio_rpc.method
    async def deliver(self, item: str, on_the_way: Callable[[int], Awaitable[None]]) -> None:
        """Deliver an item, which takes an hour."""
        for quarter in range(4):
            await on_the_way(60 - 15 * quarter)
            await trio.sleep(15 * 60)


async def buy_all(shop: Shop, item: str) -> int:
    """Buy until the shop has none left, and return the number of items."""
    count = 0
    while True:
        try:
            await shop.buy(item)
        except SoldOut:
            return count
        count += 1
