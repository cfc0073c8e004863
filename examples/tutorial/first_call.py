import trio
import trio_rpc

from jobs import Jobs


async def main() -> None:
    async with trio_rpc.connect("tcp://127.0.0.1:5000") as session:
        jobs = session.proxy("jobs", Jobs)
        print(await jobs.add(2, 3))


trio.run(main)
