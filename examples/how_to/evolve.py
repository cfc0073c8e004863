from dataclasses import dataclass

import trio
import trio_rpc


@dataclass
class OldOrder:
    item: str


class OldShop:
    @trio_rpc.method
    async def buy(self, order: OldOrder) -> str:
        return f"1 {order.item}"


@dataclass
class Order:
    item: str
    gift_wrap: bool = False  # a new field has a default


class Shop:
    @trio_rpc.method
    async def buy(self, order: Order, coupon: str = "") -> str:  # so has a new parameter
        return f"1 {order.item}{' with a ribbon' * order.gift_wrap}{coupon and f', {coupon}'}"

    @trio_rpc.method
    async def buy_many(self, order: Order, amount: int) -> str:  # a new meaning needs a new method
        return f"{amount} {order.item}"


async def buy_two(shop: Shop) -> str:
    """Use the new method, or the old one if the server lacks the new one."""
    try:
        return await shop.buy_many(Order("tea"), 2)
    except trio_rpc.MethodNotFound:
        return f"{await shop.buy(Order('tea'))} and {await shop.buy(Order('tea'))}"


async def main() -> None:
    async with (
        trio_rpc.open_server({"shop": OldShop()}, "tcp://127.0.0.1:0") as old_server,
        trio_rpc.open_server({"shop": Shop()}, "tcp://127.0.0.1:0") as new_server,
        trio_rpc.connect(old_server.urls[0]) as to_old,
        trio_rpc.connect(new_server.urls[0]) as to_new,
    ):
        print("old client, new server:", await to_new.proxy("shop", OldShop).buy(OldOrder("tea")))
        print("new client, new server:", await buy_two(to_new.proxy("shop", Shop)))
        shop = to_old.proxy("shop", Shop)
        print("new client, old server:", await buy_two(shop))
        print(
            "a field that the old server does not know:",
            await shop.buy(Order("tea", gift_wrap=True)),
        )
        try:
            await shop.buy(Order("tea"), "SUMMER")
        except trio_rpc.InvalidArguments as exc:
            print("a parameter that it does not know:", exc)


if __name__ == "__main__":
    trio.run(main)
