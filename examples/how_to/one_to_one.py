from functools import partial

import trio
import trio_rpc


class Screen:
    """The service of a client."""

    @trio_rpc.method
    async def show(self, text: str) -> None:
        print("screen:", text)


class Plugin:
    """The service of the server: one object for each connection."""

    def __init__(self, screen: Screen, name: str) -> None:
        self.screen = screen
        self.name = name

    @trio_rpc.method
    async def run(self, text: str) -> str:
        await self.screen.show(f"{self.name} is at work")
        return f"{self.name} has checked {text!r}"


def make_plugin(screen: Screen, name: str) -> Plugin:
    if name not in ("spell", "lint"):
        raise trio_rpc.Refused(f"there is no plugin {name!r}")
    return Plugin(screen, name)


handlers = [trio_rpc.ConnectionHandler("plugins/{name}", make_plugin, Screen)]


async def check(plugin: Plugin, text: str) -> None:
    try:
        print(await plugin.run(text))
    except trio_rpc.Refused as exc:
        print("refused:", exc)


async def main() -> None:
    async with trio.open_nursery() as server:
        serve = partial(trio_rpc.serve_connections, handlers, resume=True)
        urls = await server.start(serve, "ws://127.0.0.1:0")

        provider = trio_rpc.ServiceProvider(urls[0], resume=True)
        spell = provider.proxy("plugins/spell", Plugin, Screen())
        count = provider.proxy("plugins/count", Plugin, Screen())
        async with trio.open_nursery() as client:
            async with trio.open_nursery() as calls:
                calls.start_soon(check, spell, "teh")  # it waits for the connection
                await client.start(provider.run)
            await check(count, "one two three")
            await check(provider.proxy("plugins/lint", Plugin, Screen()), "x=1")
            client.cancel_scope.cancel()
        server.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
