import signal

import trio
import trio_rpc


class Slow:
    @trio_rpc.method
    async def work(self) -> str:
        await trio.sleep(1)
        return "done"


async def main() -> None:
    async with trio_rpc.open_server({"slow": Slow()}, "tcp://127.0.0.1:5004") as server:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            print("listening at", *server.urls, flush=True)
            await anext(signals)
        print("draining")  # from here on, another signal ends the program at once
        await server.drain(grace=30)
    print("stopped")


if __name__ == "__main__":
    trio.run(main)
