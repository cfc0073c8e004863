from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio_rpc

T = TypeVar("T")

WOULD_FAIL_AGAIN = (
    trio_rpc.MethodNotFound,
    trio_rpc.InvalidArguments,
    trio_rpc.Unavailable,  # the other end is closing this session
)


async def retried(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call whose handler has not run; the caller's deadline bounds the attempts."""
    pause = 0.05
    while True:
        try:
            return await call()
        except WOULD_FAIL_AGAIN:
            raise
        except trio_rpc.CallError as exc:
            if exc.fate is not trio_rpc.Fate.NOT_STARTED:
                raise
        await trio.sleep(pause)
        pause *= 2


class Bank:
    def __init__(self) -> None:
        self.balance = 100
        self.calls = 0

    @trio_rpc.method
    async def pay(self, amount: int) -> int:
        self.balance -= amount
        return self.balance

    @trio_rpc.method
    async def audit(self) -> None:
        remaining = trio.current_effective_deadline() - trio.current_time()
        print(f"the audit has less than a second left: {remaining < 1}")
        try:
            await trio.sleep_forever()
        finally:
            print("the audit has stopped")


async def busy_at_first(call: trio_rpc.Call, proceed: Callable[[], Awaitable[object]]) -> object:
    """Refuse the first two calls, as a rate limit does."""
    bank.calls += 1
    if bank.calls <= 2:
        raise trio_rpc.Overloaded(f"too many calls of {call.method!r}: try again")
    return await proceed()


bank = Bank()


async def main() -> None:
    async with (
        trio_rpc.open_server(bank, "tcp://127.0.0.1:0", filters=[busy_at_first]) as server,
        trio_rpc.connect(server.urls[0]) as session,
    ):
        proxy = session.proxy("", Bank)
        with trio.fail_after(5):
            print("paid once, balance", await retried(lambda: proxy.pay(30)))
        print("calls that arrived:", bank.calls)
        try:
            with trio.fail_after(0.5):
                await retried(proxy.audit)
        except trio.TooSlowError:
            print("the audit took too long")


if __name__ == "__main__":
    trio.run(main)
