import trio
import trio_rpc

from jobs import Jobs


async def main() -> None:
    async with trio_rpc.connect("tcp://127.0.0.1:5000") as session:
        jobs = session.proxy("jobs", Jobs)
        try:
            await jobs.result_of("dinner")
        except Jobs.NoSuchJob as exc:
            print("there is no job", exc)
        try:
            await session.call("jobs.add", "two", 3)
        except trio_rpc.InvalidArguments as exc:
            print(exc)


trio.run(main)
