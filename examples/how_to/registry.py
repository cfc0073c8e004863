import trio
import trio_rpc
from trio_rpc import Identifier
from trio_rpc.testing import open_session_pair


class Commands:
    """The interface of a registry of commands, which both ends have."""

    @trio_rpc.method
    async def run(self, name: str) -> str:
        raise NotImplementedError


class Main:
    """The services of the main program."""

    commands = Identifier("commands", Commands)


class Plugin:
    """The services of a plugin."""

    commands = Identifier("commands", Commands)


class MainCommands(Commands):
    async def run(self, name: str) -> str:
        session = trio_rpc.current_call().session
        answer = await session.proxy(Plugin.commands).run(name)
        return f"the plugin says: {answer}"


class PluginCommands(Commands):
    async def run(self, name: str) -> str:
        return f"{name} is done"


class Unfit:
    @trio_rpc.method
    async def run(self, number: int) -> str:
        return f"command {number}"


async def main() -> None:
    plugin_waits = {"wait_for_service": 5.0}
    services = {Main.commands: MainCommands()}
    async with open_session_pair(services, options_b=plugin_waits) as (_, plugin):

        async def save() -> None:
            print(await plugin.proxy(Main.commands).run("save"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(save)  # the plugin has no commands yet, so the call waits there
            await trio.sleep(0.1)
            plugin.set(Plugin.commands, PluginCommands())
        await save()
        plugin.remove(Plugin.commands)
        try:
            plugin.set(Plugin.commands, Unfit())
        except TypeError as exc:
            print(exc)


if __name__ == "__main__":
    trio.run(main)
