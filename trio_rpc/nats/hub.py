"""All channels of one connection to NATS: opening them, watching them, ending them.

Opening is a request to the subject of a service, or of one instance of it. It is JSON, as in NATS's
own services::

    {"version": 1, "subject": "the private subject of the client's end", "window": 196608}
    {"version": 1, "subject": "the same of the server's end", "window": 196608, "instance": "a1"}
    {"version": 1, "refused": "draining"}          ask elsewhere: "draining" or "full"
    {"version": 1, "probe": true}                  is there an instance of this name?
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from typing import Any, Final

import trio

from trio_rpc.errors import Refused
from trio_rpc.nats import core as c
from trio_rpc.nats.broker import Broker
from trio_rpc.nats.channel import NatsChannel, Patience
from trio_rpc.nats.names import at_subject, check_name, is_private, open_subject
from trio_rpc.nats.parser import Msg
from trio_rpc.nats.windows import WindowBudget
from trio_rpc.util.numbers import is_whole
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.text import one_line
from trio_rpc.util.time_limits import time_limit
from trio_rpc.wire.limits import Limits

__all__ = ["VERSION", "Hub", "Offer"]

logger = logging.getLogger("trio_rpc")

VERSION: Final = 1

BLOCKED: Final = 0.1
"""A look that is late by more seconds shows that this program was blocked."""

MAX_OPENING: Final = 4096
"""Bytes of a request that opens a channel, and of its answer."""

MAX_TRIES: Final = 8
"""Instances that are asked, at most, if each tells the opener to ask elsewhere."""

LINGERING: Final = 5.0
"""Seconds for which a closed channel still sends its last messages again."""

ASK_ELSEWHERE: Final = frozenset({"draining", "full"})


class Offer:
    """A client's request to open a channel, already checked.

    Attributes:
        reply: the subject for the answer.
        subject: the private subject of the client's end; ``""`` if it only probes.
        window: bytes that it grants.
    """

    __slots__ = ("reply", "subject", "window")

    def __init__(self, reply: str, subject: str, window: int) -> None:
        self.reply = reply
        self.subject = subject
        self.window = window


class Hub:
    """The channels of one connection.

    Args:
        broker: the connection.
        patience: the times after which a channel breaks.
        total_window: bytes of the windows of all channels.
    """

    def __init__(self, broker: Broker, patience: Patience, total_window: int | None = None) -> None:
        self._broker = broker
        self._patience = patience
        self._budget = WindowBudget() if total_window is None else WindowBudget(total_window)
        # Bound: the budget, of which each channel has at least 32 KiB.
        self._channels: dict[NatsChannel, float | None] = {}
        """Each channel, and when this end has closed it."""
        self._has_channels = trio.Event()
        self._complaints = RateLimitedLog(logger)
        broker.on_up(self._came_up)

    # ------------------------------------------------------------------------------ opening

    async def open(self, service: str, instance: str, limits: Limits) -> NatsChannel:
        """Open a channel to a service.

        Args:
            service: its name.
            instance: the name of one instance, or ``""`` for any.
            limits: of the channel; ``handshake_timeout`` bounds the time to open it.

        Raises:
            ConnectionRefusedError: no instance serves it.
            OSError: no answer in time, or all instances asked are full or draining.
            Refused: this client may not open channels, or the versions differ.
        """
        check_name(service, "a service")
        where = f"the service {service!r}"
        if instance:
            where = f"the instance {check_name(instance, 'an instance')!r} of {where}"
        subject = at_subject(service, instance) if instance else open_subject(service)
        channel = self.new_channel(limits, opened_here=True)
        if channel is None:
            raise OSError("the channels of this connection to NATS use all of its window")
        try:
            async with time_limit(limits.handshake_timeout, f"no answer from {where} in NATS"):
                await self._open(channel, subject, where)
        except BaseException:
            channel.close()
            raise
        return channel

    async def _open(self, channel: NatsChannel, subject: str, where: str) -> None:
        request = {"version": VERSION, "subject": channel.subject, "window": channel.window}
        why = ""
        for attempt in range(MAX_TRIES):
            if attempt:
                await trio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311
            try:
                answer = await self._broker.request(subject, json.dumps(request).encode())
            except ConnectionRefusedError:
                text = f"nobody serves {where} in NATS" if not why else f"{where} is {why}"
                raise ConnectionRefusedError(text) from None
            facts = _parse(answer.data)
            if facts is None:
                raise ConnectionError(f"{where} gave an answer that is not valid")
            refused = facts.get("refused")
            if refused is None:
                self._begin(channel, facts, where)
                return
            why = one_line(str(refused))
            if refused not in ASK_ELSEWHERE:
                raise Refused(f"{where} says: {why}")
        raise ConnectionRefusedError(f"{where} is {why}")

    def _begin(self, channel: NatsChannel, facts: Mapping[str, Any], where: str) -> None:
        subject, window, instance = (
            facts.get("subject"),
            facts.get("window"),
            facts.get("instance"),
        )
        if not self._is_offer(subject, window) or not isinstance(instance, str):
            raise ConnectionError(f"{where} gave an answer that is not valid")
        channel.instance = check_name(instance, "an instance")
        channel.begin(str(subject), int(window or 0))

    def _is_offer(self, subject: object, window: object) -> bool:
        return (
            isinstance(subject, str)
            and is_private(subject, self._broker.prefix)
            and is_whole(window, c.LEAST_WINDOW)
        )

    def new_channel(self, limits: Limits, *, opened_here: bool) -> NatsChannel | None:
        """Return a new channel that has no peer yet, or None if there is no window for it."""
        window = self._budget.take()
        if not window:
            return None
        channel = NatsChannel(
            self._broker,
            limits,
            window,
            self._patience,
            opened_here=opened_here,
            ended=self._ended,
        )
        self._channels[channel] = None
        self._has_channels.set()
        return channel

    def read_offer(self, message: Msg) -> Offer | None:
        """Check a client's request to open a channel; answer it here if it is not valid."""
        if not message.reply or len(message.reply) > 256:
            return None
        facts = _parse(message.data)
        if facts is None:
            self.refuse(message.reply, "the request is not valid")
            return None
        if facts.get("version") != VERSION:
            self.refuse(message.reply, f"this end has version {VERSION}")
            return None
        if facts.get("probe") is True:
            return Offer(message.reply, "", 0)
        subject, window = facts.get("subject"), facts.get("window")
        if not self._is_offer(subject, window):
            self.refuse(message.reply, "the request is not valid")
            return None
        return Offer(message.reply, str(subject), int(window or 0))

    def accept(self, offer: Offer, instance: str, limits: Limits) -> NatsChannel | None:
        """Accept an offer, and return the channel, or refuse it if there is no window left."""
        channel = self.new_channel(limits, opened_here=False)
        if channel is None:
            self.refuse(offer.reply, "full")
            return None
        channel.begin(offer.subject, offer.window)
        self.answer(
            offer.reply,
            {"subject": channel.subject, "window": channel.window, "instance": instance},
        )
        return channel

    def refuse(self, reply: str, reason: str) -> None:
        """Refuse a request."""
        self.answer(reply, {"refused": reason})

    def answer(self, reply: str, facts: Mapping[str, object]) -> None:
        """Answer a request. Without room, its client hears nothing and asks again."""
        try:
            self._broker.publish_nowait(reply, json.dumps({"version": VERSION, **facts}).encode())
        except ValueError as exc:  # the subject that a stranger wants to be answered at
            self._complaints.log(logging.INFO, "a request on NATS: %s", exc)

    # ----------------------------------------------------------------------------- watching

    def on_stray(self, message: Msg) -> None:
        """Tell the sender of a message for a channel that has ended, unless it said so itself."""
        if message.headers or not is_private(message.reply, self._broker.prefix):
            return
        if message.data[:1] not in (b"R", b"X"):
            reset = c.ChannelCore(0).control(c.RESET, b"it does not know the channel")
            self._broker.publish_nowait(message.reply, reset)

    def on_room(self) -> None:
        """Continue sending on all channels."""
        for channel in list(self._channels):
            channel.pump()

    def _came_up(self) -> None:
        for channel in list(self._channels):
            channel.came_up()

    def _ended(self, channel: NatsChannel) -> None:
        if channel in self._channels:
            del self._channels[channel]
            self._budget.give_back(channel.window)
            self._broker.drop_inbox(channel.subject)

    async def run(self) -> None:
        """Watch the channels, until cancelled."""
        while True:
            if not self._channels:
                self._has_channels = trio.Event()
                await self._has_channels.wait()
            due = trio.current_time() + self._patience.look_interval
            await trio.sleep_until(due)
            late = trio.current_time() - due
            if late > BLOCKED:
                # Messages that have arrived meanwhile are not read yet.
                for channel in self._channels:
                    channel.was_blocked(late)
            else:
                self._look()

    def _look(self) -> None:
        now = trio.current_time()
        for channel, closed_at in list(self._channels.items()):
            if closed_at is None:
                if channel.is_closed:
                    self._channels[channel] = now
            elif now - closed_at >= LINGERING:
                self._ended(channel)
                continue
            channel.look(now)

    def fail(self, reason: str) -> None:
        """Break all channels, since there will be no broker any more."""
        for channel in list(self._channels):
            channel.fail(reason)


def _parse(data: bytes) -> dict[str, Any] | None:
    """Parse the JSON object of a request or an answer."""
    if len(data) > MAX_OPENING:
        return None
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None
