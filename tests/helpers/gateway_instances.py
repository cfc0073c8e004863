"""Several instances of a gateway in one program, joined by links in memory."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from helpers.asgi_peers import HttpPeer, WebSocketPeer
from helpers.instances import FakeInstance
from trio_rpc.gateway import Gateway, Spread, open_spread

__all__ = ["GatewayInstance", "open_instances", "until"]


class GatewayInstance:
    """One instance, and the link that the others reach it by.

    Attributes:
        app: the gateway.
        link: its end of the links, which can drop, freeze and break.
        spread: the result of :func:`open_spread`.
        service: the service.
    """

    def __init__(self, name: str, service: Any, **options: Any) -> None:
        self.name = name
        self.service = service
        self.app = Gateway(service, home=name, **options)
        self.link = FakeInstance(name)
        self.spread: Spread
        self._stop = trio.CancelScope()
        self._ended = trio.Event()

    async def run(
        self, others: list[GatewayInstance], options: dict[str, Any], *, task_status: Any
    ) -> None:
        links = {each.name: each.link.instance for each in others}
        try:
            with self._stop:
                async with (
                    self.app.run(),
                    open_spread(self.app, links, **options) as self.spread,
                    trio.open_nursery() as nursery,
                ):
                    self.link.services = self.spread.services
                    self.link.options = {"limits": self.spread.limits}
                    await nursery.start(self.link.serve)
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self._ended.set()

    @property
    def is_joined(self) -> bool:
        return all(each.state == "open" for each in self.spread.instances())

    async def stop(self) -> None:
        """End it in order."""
        self._stop.cancel()
        await self._ended.wait()

    async def die(self) -> None:
        """End it without a word to the others."""
        self.link.kill()
        await self.stop()


@contextlib.asynccontextmanager
async def open_instances(
    service: Callable[[], Any], names: str = "ab", *, patience: float = 5.0, **options: Any
) -> AsyncIterator[list[GatewayInstance]]:
    """Run an instance of a gateway for each letter, with a service each, until the block ends."""
    instances = [GatewayInstance(name, service(), **options) for name in names]
    async with trio.open_nursery() as nursery:
        for each in instances:
            others = [other for other in instances if other is not each]
            await nursery.start(each.run, others, {"patience": patience})
        await until(lambda: all(each.is_joined for each in instances))
        yield instances
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something holds."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)


class Page:
    """A client that sends each request and each WebSocket to the instance that a test names."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.socket = WebSocketPeer()
        self.headers: list[tuple[bytes, bytes]] = []

    @property
    def id(self) -> str:
        return self.hello["uuid"]

    async def connect(
        self, instance: GatewayInstance, query: str = "resumable=1&answers=1"
    ) -> None:
        """Become a client of an instance."""
        self.socket = WebSocketPeer(query)
        self.socket.scope["headers"] = self.headers
        self._nursery.start_soon(self.socket.run, instance.app)
        await until(lambda: self.socket.messages)
        self.hello = self.socket.messages[0]

    async def resume(self, instance: GatewayInstance, seen: int = 0, token: str = "") -> Any:
        """Come back at an instance, and return the first message."""
        self.socket = WebSocketPeer("resume=1")
        self._nursery.start_soon(self.socket.run, instance.app)
        token = token or self.hello["token"]
        self.socket.says("resume", uuid=self.id, token=token, seq=seen)
        await until(lambda: self.socket.messages or self.socket.close_code is not None)
        return self.socket.messages[0] if self.socket.messages else self.socket.close_code

    async def post(
        self, instance: GatewayInstance, method: str, data: Any = None, **headers: str
    ) -> HttpPeer:
        """POST at an instance, and return the request when it was answered."""
        headers = {"Trio-Rpc-Token": self.hello["token"], **headers}
        peer = HttpPeer(f"/api/{method}/{self.id}", data, headers, reads=True)
        await peer.run(instance.app)
        return peer
