import contextlib
from collections.abc import Awaitable, Callable

import httpx
import trio
import trio_rpc
from fastapi import FastAPI
from trio_rpc.gateway import Gateway, Message, open_http_server


class News:
    """Each page that is open waits in `listen`, and `publish` reaches all of them."""

    def __init__(self) -> None:
        self._latest = "welcome"
        self._outboxes: set[trio.MemorySendChannel[str]] = set()

    @trio_rpc.method
    async def listen(self, on_news: Callable[[str], Awaitable[None]]) -> None:
        outbox, news = trio.open_memory_channel[str](100)
        self._outboxes.add(outbox)
        try:
            await on_news(self._latest)
            async for text in news:
                await on_news(text)
        finally:
            self._outboxes.remove(outbox)  # the page has left

    def publish(self, text: str) -> None:
        self._latest = text
        for outbox in self._outboxes:
            with contextlib.suppress(trio.WouldBlock):  # 100 texts behind: this page misses one
                outbox.send_nowait(text)


news = News()
gateway = Gateway(news)
app = FastAPI(lifespan=lambda _: gateway.run())
app.mount("/rpc", gateway)


@app.post("/publish/{text}")
async def publish(text: str) -> None:
    news.publish(text)


async def page(port: int, seen: list[str], *, task_status: trio.TaskStatus[None]) -> None:
    """Do the same in Python as a page."""
    with trio.CancelScope() as scope:

        async def on_news(text: str) -> None:
            seen.append(text)
            if len(seen) == 1:
                task_status.started()
            if text == "closing time":
                scope.cancel()

        message = Message("127.0.0.1", port, path="/rpc")
        await message.post("listen", callbacks={"on_news": on_news})


async def main() -> None:
    ann, bob = list[str](), list[str]()
    async with open_http_server(app, "http://127.0.0.1:0") as [url], trio.open_nursery() as pages:
        port = int(url.rpartition(":")[2])
        async with httpx.AsyncClient(base_url=url) as http:
            await pages.start(page, port, ann)
            await http.post("/publish/lunch is ready")
            await pages.start(page, port, bob)
            await http.post("/publish/closing time")
    print("ann's page saw", ann)
    print("bob's page saw", bob)


if __name__ == "__main__":
    trio.run(main)
