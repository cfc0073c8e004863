import trio
import trio_rpc

from jobs import Jobs


async def main() -> None:
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(trio_rpc.serve, {"jobs": Jobs()}, "tcp://127.0.0.1:5000")
        print("listening at", *urls, flush=True)


if __name__ == "__main__":
    trio.run(main)
