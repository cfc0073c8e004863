import trio
from trio_rpc.gateway import Message


async def main() -> None:
    one, other = Message("127.0.0.1", 8000), Message("127.0.0.1", 8001)
    job = await one.start("count", {"start": 3})
    print(await other.job(job.id).result({"tick": print}))


trio.run(main)
