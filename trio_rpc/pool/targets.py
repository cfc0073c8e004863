"""What a user gives to a pool, as instances and sources of instances."""

from __future__ import annotations

import functools
import shlex
import ssl
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from trio_rpc.channels.carriers import open_carrier
from trio_rpc.channels.opening import open_channel
from trio_rpc.channels.process import check_command, open_process_channel
from trio_rpc.channels.resumable.settings import Resume
from trio_rpc.channels.urls import parse_url
from trio_rpc.one_to_one.restart import Restart
from trio_rpc.pool.dns import DNS, DnsSource, parse_dns
from trio_rpc.pool.instances import Instance
from trio_rpc.pool.sources import FixedSource, GivenSource, Source
from trio_rpc.wire.limits import Limits

__all__ = ["Targets"]

EXEC: Final = "exec:"
"""The prefix of a command, in place of a URL, for a program that serves its parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Makes instances of the arguments of :func:`trio_rpc.open_pool`.

    Attributes:
        ssl_context: for ``tls`` and ``wss``, or None.
        limits: the limits of the sessions.
        resume: settings of sessions that reconnect, or None.
        restart: how often a process is started again.
    """

    ssl_context: ssl.SSLContext | None
    limits: Limits
    resume: Resume | None
    restart: Restart

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
            elif isinstance(each, str | Instance):
                fixed.append(each)
            elif hasattr(type(each), "__aiter__"):
                sources.append(GivenSource(each, self.instances))
            else:
                raise TypeError(
                    f"a pool is given URLs, or an async iterable of them, not {each!r:.200}"
                )
        if fixed:
            sources.insert(0, FixedSource(self.instances(fixed)))
        return sources

    def instances(self, given: Iterable[Any]) -> list[Instance]:
        """Return the instances of one collection, with different names.

        Raises:
            ValueError: a URL or command is invalid.
            TypeError: an entry is neither a str nor an Instance.
        """
        if isinstance(given, str | bytes):
            raise TypeError(
                f"instances are given as a list of URLs, not as the text {given!r:.200}"
            )
        made: dict[str, Instance] = {}
        for each in given:
            instance = self.instance(each)
            name, number = instance.name, 1
            while name in made:
                number += 1
                name = f"{instance.name} #{number}"
            made[name] = Instance(name, instance.open, instance.restart)
        return list(made.values())

    def instance(self, given: object) -> Instance:
        """Return the instance that a URL or a command names."""
        if isinstance(given, Instance):
            return given
        if not isinstance(given, str):
            raise TypeError(f"an instance is a URL or an Instance, not {given!r:.200}")
        if given.startswith(EXEC):
            words = check_command(shlex.split(given.removeprefix(EXEC)))
            return Instance(
                given, lambda limits: open_process_channel(words, limits=limits), self.restart
            )
        address = parse_url(given)
        context = self.ssl_context if address.is_encrypted else None
        return Instance(
            given,
            lambda limits: open_carrier(
                functools.partial(open_channel, given),
                ssl_context=context,
                limits=limits,
                resume=self.resume,
            ),
        )

    def _at_address(self, url: str, address: str) -> Instance:
        context = self.ssl_context if parse_url(url).is_encrypted else None
        return Instance(
            f"{url} at {address}",
            lambda limits: open_carrier(
                functools.partial(open_channel, url, address=address),
                ssl_context=context,
                limits=limits,
                resume=self.resume,
            ),
        )
