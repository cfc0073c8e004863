import threading
import time

import trio
import trio_rpc


class Worker:
    @trio_rpc.method
    async def digest(self, text: str) -> str:
        time.sleep(0.1)  # noqa: ASYNC251 - stands for work that blocks
        return f"{sum(map(ord, text))}, by {threading.current_thread().name}"


async def main() -> None:
    async with trio_rpc.open_thread(Worker()) as session:
        print(await session.proxy("", Worker).digest("hello"))


if __name__ == "__main__":
    trio.run(main)
