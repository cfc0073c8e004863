import contextlib
import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable

import trio
import trio_rpc

log = logging.getLogger("shop")
calls = Counter[tuple[str, str]]()
seconds = defaultdict[str, float](float)


async def measure(call: trio_rpc.Call, proceed: Callable[[], Awaitable[object]]) -> object:
    """Log and count each call that this end handles or makes."""
    began, outcome = trio.current_time(), "cancelled"
    try:
        result = await proceed()
        outcome = "ok"
        return result
    except Exception as exc:
        outcome = type(exc).__name__
        raise
    finally:
        calls[call.method, outcome] += 1
        seconds[call.method] += trio.current_time() - began
        log.info("%s: %s, trace %s", call.method, outcome, call.metadata.get("trace"))


class Shop:
    def __init__(self) -> None:
        self.stock = {"tea": 1}

    @trio_rpc.method
    async def buy(self, item: str) -> int:
        self.stock[item] -= 1  # a bug: no check whether there is such an item
        return self.stock[item]

    @trio_rpc.method
    async def wait(self) -> None:
        await trio.sleep_forever()


class OneLine(logging.Formatter):
    """Log a handler's bug in one line: its method and the exception, without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == "trio_rpc.handlers" and record.exc_info:
            exc = record.exc_info[1]
            return f"{record.levelname} a bug in {record.rpc_method}: {exc!r}"  # type: ignore[attr-defined]
        return f"{record.levelname} {record.getMessage()}"


async def main() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    async with (
        trio_rpc.open_server({"shop": Shop()}, "tcp://127.0.0.1:0", filters=[measure]) as server,
        trio_rpc.connect(server.urls[0]) as session,
    ):
        shop = session.proxy("shop", Shop)
        with trio_rpc.metadata(trace="7f3a"):
            await shop.buy("tea")
            with contextlib.suppress(KeyError):
                await shop.buy("milk")
            with trio.move_on_after(0.1):
                await shop.wait()
        print("calls:", dict(calls))
        print("waited:", seconds["shop.wait"] > 0.05)
        print("in flight:", session.statistics().calls_out)


if __name__ == "__main__":
    trio.run(main)
