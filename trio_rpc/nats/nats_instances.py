"""The instances of a service that NATS knows, now and later: for :func:`trio_rpc.open_pool`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

from trio_rpc.channels.carriers import OpenChannel
from trio_rpc.nats.broker import Broker
from trio_rpc.nats.discovery import InstanceInfo, find_instances
from trio_rpc.util.asking import AskingPause

__all__ = ["NatsInstance", "NatsInstances"]

ASK_INTERVAL: Final = 5.0
"""Seconds between two requests for the instances. The sessions of a pool show which have left."""

ASK_SOON: Final = 0.5
"""Seconds until the next question while there is no instance, or after :meth:`ask_again`."""

ANSWER_TIME: Final = 0.5
"""Seconds in which instances answer."""

MISSED_ANSWERS: Final = 3
"""Answers in a row that an instance may miss, since it may be busy, before it counts as gone."""


class NatsInstance:
    """An instance that is reached through NATS.

    Attributes:
        name: its name, with that of the service.
        open_channel: opens a channel to it, each time that it is called.
    """

    __slots__ = ("name", "open_channel")

    def __init__(self, name: str, open_channel: OpenChannel) -> None:
        self.name = name
        self.open_channel = open_channel

    def __repr__(self) -> str:
        return f"<trio_rpc.nats.NatsInstance {self.name}>"


class NatsInstances:
    """An async iterable of all instances that serve; made by :meth:`trio_rpc.nats.Nats.instances`.

    It asks every 5 s. An instance that does not answer three times is no longer among them. A pool
    notices earlier that an instance has left, by its session.
    """

    def __init__(
        self,
        broker: Broker,
        service: str,
        instance_of: Callable[[InstanceInfo], str | NatsInstance | None],
    ) -> None:
        self._broker = broker
        self._service = service
        self._instance_of = instance_of
        self._pause = AskingPause()

    def ask_again(self) -> None:
        """Ask soon, since an instance was lost or is not known.

        :meta private:
        """
        self._pause.cut_short()

    async def __aiter__(self) -> AsyncIterator[list[str | NatsInstance]]:
        """Yield the known instances, now and after each change."""
        missed: dict[str, int] = {}
        known: dict[str, InstanceInfo] = {}
        told: dict[str, InstanceInfo] | None = None
        while True:
            found = await find_instances(self._broker, self._service, seconds=ANSWER_TIME)
            answered = {info.instance: info for info in found}
            missed = {
                name: 0 if name in answered else missed.get(name, 0) + 1
                for name in (*known, *answered)
            }
            known = {
                name: info
                for name, info in (known | answered).items()
                if missed[name] < MISSED_ANSWERS
            }
            if known != told:
                told = dict(known)
                made = (self._instance_of(info) for info in known.values())
                yield [each for each in made if each is not None]
            await self._pause.sleep(ASK_SOON, ASK_INTERVAL - ASK_SOON if known else 0.0)
