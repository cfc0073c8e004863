import trio
import trio_rpc

from jobs import Jobs


async def main() -> None:
    async with trio_rpc.connect("tcp://127.0.0.1:5000") as session:
        jobs = session.proxy("jobs", Jobs)
        async with jobs.frames(7) as frames:
            async for frame in frames:
                print(frame)
                if frame == "frame 9":
                    break
        print("the stream is closed")


trio.run(main)
