import trio
from trio_rpc.gateway import Message


async def main() -> None:
    message = Message("127.0.0.1", 8000, path="/rpc")
    async with message.connect():
        print(await message.post("render", {"frames": 2}, callbacks={"progress": print}))


if __name__ == "__main__":
    trio.run(main)
