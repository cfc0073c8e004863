import trio
import trio_rpc


async def main() -> None:
    async with trio_rpc.connect("tcp://127.0.0.1:5000") as session:
        print(await session.call("oven.bake", "lemon", 0.01))
        with trio.move_on_after(1):
            await session.call("oven.bake", "plum", 60)


trio.run(main)
