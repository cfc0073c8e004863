import trio
import trio_rpc

from jobs import Jobs


async def ignore(frame: int) -> None:
    pass


async def main() -> None:
    async with trio_rpc.connect("tcp://127.0.0.1:5000") as session:
        jobs = session.proxy("jobs", Jobs)
        with trio.move_on_after(0.5) as patience:
            await jobs.render(1000, ignore)
        print("gave up:", patience.cancelled_caught)


trio.run(main)
