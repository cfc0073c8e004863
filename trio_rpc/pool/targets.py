"""Convert a user's arguments of a pool to instances and sources of instances."""

from __future__ import annotations

import functools
import shlex
import ssl
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

import trio

from trio_rpc.channels.carriers import OpenChannel, open_carrier
from trio_rpc.channels.instance import Instance, OpenInstance
from trio_rpc.channels.opening import open_channel
from trio_rpc.channels.process import check_command, open_process_channel
from trio_rpc.channels.resumable.settings import Resume
from trio_rpc.channels.urls import parse_url
from trio_rpc.nats.addresses import is_nats, parse_nats_url
from trio_rpc.nats.any_url import ChannelOpener, InstancesAt
from trio_rpc.nats.nats_instances import NatsInstance, NatsInstances
from trio_rpc.nats.nats_options import NatsOptions
from trio_rpc.one_to_one.restart import Restart
from trio_rpc.pool.dns import DNS, DnsSource, check_port, parse_dns
from trio_rpc.pool.instances import Reachable
from trio_rpc.pool.sources import FixedSource, GivenSource, Source
from trio_rpc.wire.limits import Limits

__all__ = ["EXEC", "Targets", "words_of"]

EXEC: Final = "exec:"
"""The prefix of a command, in place of a URL, for a program that serves its parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Makes instances of the arguments of :func:`trio_rpc.open_pool`.

    Attributes:
        ssl_context: for ``tls``, ``wss`` and ``nats``, or None.
        limits: the limits of the sessions.
        resume: settings of sessions that reconnect, or None.
        restart: how often a process is started again.
        nats: the settings for ``nats``, or None.
    """

    ssl_context: ssl.SSLContext | None
    limits: Limits
    resume: Resume | None
    restart: Restart
    nats: NatsOptions | None

    def sources(self, where: Collection[Any]) -> list[Source]:
        """Return the sources of the instances of a pool.

        Raises:
            ValueError: there is none, or a URL or command is invalid.
            TypeError: an argument is not a str and cannot be iterated over.
        """
        if not where:
            raise ValueError("a pool needs a URL, such as tcp://localhost:5000")
        fixed: list[str | Instance] = []
        sources: list[Source] = []
        for each in where:
            if isinstance(each, str) and each.startswith(DNS):
                name = parse_dns(each)
                sources.append(DnsSource(name, functools.partial(self._at_address, name.url)))
            elif isinstance(each, str) and is_nats(each) and not parse_nats_url(each).instance:
                told = InstancesAt(each, self.nats, self.ssl_context)
                sources.append(GivenSource(told, self.instances, told.ask_again))
            elif isinstance(each, str | Instance):
                fixed.append(each)
            elif isinstance(each, NatsInstances):
                sources.append(GivenSource(each, self.instances, each.ask_again))
            elif hasattr(type(each), "__aiter__"):
                sources.append(GivenSource(each, self.instances))
            else:
                raise TypeError(
                    f"a pool is given URLs, or an async iterable of them, not {each!r:.200}"
                )
        if fixed:
            sources.insert(0, FixedSource(self.instances(fixed)))
        return sources

    def instances(self, given: Iterable[Any]) -> list[Reachable]:
        """Return the instances of one collection, with different names.

        Raises:
            ValueError: a URL or command is invalid.
            TypeError: an entry is neither a str nor an Instance.
        """
        if isinstance(given, str | bytes):
            raise TypeError(
                f"instances are given as a list of URLs, not as the text {given!r:.200}"
            )
        made: dict[str, Reachable] = {}
        for each in given:
            instance = self.instance(each)
            name, number = instance.name, 1
            while name in made:
                number += 1
                name = f"{instance.name} #{number}"
            made[name] = Reachable(name, instance.open, instance.restart)
        return list(made.values())

    def instance(self, given: object) -> Reachable:
        """Return the instance that a URL or a command names."""
        if isinstance(given, Instance):
            return Reachable(given.name, given.open)
        if isinstance(given, NatsInstance):
            return Reachable(given.name, self._opening(lambda: given.open_channel, "nats:"))
        if not isinstance(given, str):
            raise TypeError(f"an instance is a URL or an Instance, not {given!r:.200}")
        if given.startswith(EXEC):
            words = check_command(words_of(given))
            return Reachable(
                given, lambda limits: open_process_channel(words, limits=limits), self.restart
            )
        if not is_nats(given):
            check_port(parse_url(given))
        return Reachable(
            given,
            self._opening(
                lambda: ChannelOpener(given, self.nats if is_nats(given) else None), given
            ),
        )

    def _at_address(self, url: str, address: str) -> Reachable:
        opener = functools.partial(open_channel, url, address=address)
        return Reachable(f"{url} at {address}", self._opening(lambda: opener, url))

    def _opening(self, make_opener: Callable[[], OpenChannel], url: str) -> OpenInstance:
        """Return the function that opens a fresh channel to a URL."""
        context = None if url.startswith(("tcp:", "unix:", "ws:")) else self.ssl_context

        def open_with(limits: Limits) -> AbstractAsyncContextManager[trio.abc.Channel[bytes]]:
            return open_carrier(
                make_opener(), ssl_context=context, limits=limits, resume=self.resume
            )

        return open_with


def words_of(given: str) -> list[str]:
    """Split the command of an ``exec:`` URL into words. Raises ValueError."""
    try:
        return shlex.split(given.removeprefix(EXEC))
    except ValueError as exc:
        raise ValueError(f"the command {given!r:.200} cannot be split into words: {exc}") from None
