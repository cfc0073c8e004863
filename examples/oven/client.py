import trio
import trio_rpc

from server import Oven


async def main() -> None:
    async with trio_rpc.connect("tcp://127.0.0.1:5000") as session:
        oven = session.proxy("oven", Oven)
        print(await oven.bake("lemon", minutes=0.01))
        with trio.move_on_after(1):
            await oven.bake("plum", minutes=60)
        print("nobody bakes any more")


trio.run(main)
