import trio
import trio_rpc
from trio_rpc.testing import open_chaos_proxy


class Jobs:
    def __init__(self) -> None:
        self.started = trio.Event()
        self.runs = 0

    @trio_rpc.method
    async def run(self) -> str:
        self.runs += 1
        self.started.set()
        await trio.sleep(0.3)
        return "done"


async def main() -> None:
    jobs, states = Jobs(), list[str]()

    async def watch(session: trio_rpc.Session) -> None:
        async for state in session.connection_states():
            states.append(state.value)

    async def call(session: trio_rpc.Session) -> None:
        print("the call returns:", await session.proxy("jobs", Jobs).run())

    async with (
        trio_rpc.open_server({"jobs": jobs}, "tcp://127.0.0.1:0", resume=True) as server,
        open_chaos_proxy(server.urls[0]) as network,
        trio_rpc.connect(network.url, resume=trio_rpc.Resume(grace=60)) as session,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch, session)
        async with trio.open_nursery() as calls:
            calls.start_soon(call, session)
            await jobs.started.wait()
            network.cut()
        nursery.cancel_scope.cancel()
    print("the connection was:", *states)
    print("the handler ran:", jobs.runs, "time")


if __name__ == "__main__":
    trio.run(main)
