import trio
import trio_rpc
from trio_rpc import tracing


class Logger:
    @trio_rpc.method
    async def info(self, line: str) -> None:
        print("logged:", line)


async def main() -> None:
    here: list[tracing.TraceEvent] = []
    there: list[tracing.TraceEvent] = []
    services = {"logger": Logger()}
    async with (
        trio_rpc.open_server(services, "tcp://127.0.0.1:0", trace=there.append) as server,
        trio_rpc.connect(server.urls[0], trace=here.append) as session,
    ):
        logger = session.proxy("logger", Logger)
        await logger.info("app start")

    [call] = tracing.join(here, there)
    print(f"{call.method}: {call.outcome}, {len(call.steps)} steps")
    for step, event in call.steps.items():
        end = "callee" if event.is_incoming else "caller"
        print(f"{end} {step:2} {tracing.STEPS[step]}")


if __name__ == "__main__":
    trio.run(main)
