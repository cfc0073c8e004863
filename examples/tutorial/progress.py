import trio
import trio_rpc

from jobs import Jobs


async def show(frame: int) -> None:
    print(f"frame {frame}")


async def main() -> None:
    async with trio_rpc.connect("tcp://127.0.0.1:5000") as session:
        jobs = session.proxy("jobs", Jobs)
        print(await jobs.render(3, show))


trio.run(main)
