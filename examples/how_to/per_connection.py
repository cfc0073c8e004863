import functools

import trio
import trio_rpc


class SoldOut(Exception):
    pass


class Cart:
    """One shopping cart for each client."""

    def __init__(self, shop: "Shop") -> None:
        self.shop = shop
        self.items: list[str] = []

    @trio_rpc.method(raises=(SoldOut,))
    async def add(self, item: str) -> list[str]:
        self.shop.take(item)
        self.items.append(item)
        return self.items

    @trio_rpc.method
    async def pay(self) -> str:
        paid, self.items = self.items, []
        return f"paid for {len(paid)}"


class Shop:
    """The state that all clients share."""

    def __init__(self, stock: dict[str, int]) -> None:
        self.stock = stock

    def take(self, item: str) -> None:
        if not self.stock.get(item):
            raise SoldOut(f"there is no {item} left")
        self.stock[item] -= 1

    def give_back(self, items: list[str]) -> None:
        for item in items:
            self.stock[item] += 1


def services(shop: Shop, nursery: trio.Nursery, session: trio_rpc.Session) -> dict[str, object]:
    """Return the services of one client, and start the task that cleans up after it."""
    cart = Cart(shop)
    nursery.start_soon(clean_up, shop, cart, session)
    return {"cart": cart}


async def clean_up(shop: Shop, cart: Cart, session: trio_rpc.Session) -> None:
    try:
        await session.wait_closed()
    finally:
        shop.give_back(cart.items)


async def main() -> None:
    shop = Shop({"tea": 1})
    async with trio.open_nursery() as nursery:
        make_services = functools.partial(services, shop, nursery)
        async with trio_rpc.open_server(make_services, "tcp://127.0.0.1:0") as server:
            async with trio_rpc.connect(server.urls[0]) as session:
                print("ann's cart:", await session.proxy("cart", Cart).add("tea"))
                async with trio_rpc.connect(server.urls[0]) as other:
                    try:
                        await other.proxy("cart", Cart).add("tea")
                    except SoldOut as exc:
                        print("bob gets:", exc)
            await server.drain()
    print("after ann has left without paying:", shop.stock)


if __name__ == "__main__":
    trio.run(main)
