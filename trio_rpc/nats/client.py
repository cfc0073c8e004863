"""The client of a NATS cluster: the seven verbs, over one connection that is made again when lost.

The rules for each verb:

1. Subscriptions last: they are made again on each new connection.
2. A message that is published while there is no connection is not sent later. ``publish`` waits
   for a connection; ``publish_nowait`` returns False.
3. A message that was written when the connection broke may be lost, as always in core NATS.
4. Only messages for subscriptions reach the user's code; nothing else from the server does.
"""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import trio

from trio_rpc.channels.errors import closed_error
from trio_rpc.errors import DecodeError, Refused
from trio_rpc.nats import parser as p
from trio_rpc.nats.addresses import NatsAddress, Server
from trio_rpc.nats.broker import OnMessage, Subscription
from trio_rpc.nats.credentials import Credentials
from trio_rpc.nats.link import Link, open_link
from trio_rpc.nats.names import check_name, check_subject, new_token
from trio_rpc.nats.server_list import ServerList
from trio_rpc.util.owner import Owner
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.reconnect import keep_connected
from trio_rpc.util.text import one_line
from trio_rpc.util.time_limits import SilenceTimer, time_limit

__all__ = ["NatsClient"]

logger = logging.getLogger("trio_rpc")

FIRST_DELAY: Final = 0.02
MAX_DELAY: Final = 0.4
"""Seconds between two attempts to connect, at most. Both ends of a channel must have reconnected
within ``linger`` of each other, or one of them gives the other up."""

CONNECT_TIMEOUT: Final = 2.0
"""Seconds for one server to accept a connection; then the next one is tried."""

FLUSH_AT_END: Final = 1.0
"""Seconds at most in which the last messages reach the server when the client is closed."""

SILENT_INTERVALS: Final = 2.5
"""Intervals of pings without a sign of life after which a connection is given up."""

MAX_ANSWERS: Final = 4096
"""Answers that ``gather`` keeps."""

NO_RESPONDERS: Final = 503

NO_ANSWERS: Final = "this client may not subscribe to its inbox in NATS, where answers arrive"

_DENIED: Final = re.compile(
    r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE
)


class _Replaced(Exception):
    """The server has asked its clients to use another one."""


class NatsClient:
    """A client of a NATS cluster; :class:`trio_rpc.nats.Nats` has its description.

    Args:
        address: the servers, and perhaps credentials.
        credentials: replace those of the address.
        ssl_context: as in :func:`trio_rpc.nats.open_nats`.
        prefix: as ``inbox_prefix`` there.
        ping_interval: as there.
        name: the name of this client, which an operator sees.
    """

    def __init__(
        self,
        address: NatsAddress,
        *,
        credentials: Credentials | None,
        ssl_context: ssl.SSLContext | None,
        prefix: str,
        ping_interval: float,
        name: str,
    ) -> None:
        self._credentials = credentials or address.credentials
        self._ssl_context = ssl_context
        self._ping_interval = ping_interval
        self._name = name
        self._servers = ServerList(address.servers)
        self._link: Link | None = None
        self._changed_at = trio.current_time()
        self._failure: Exception | None = None
        self._last_error: Exception | None = None
        self._is_closed = False
        self._prefix = check_subject(prefix)
        self._inbox = f"{self._prefix}.{new_token()}"
        # Bound: one for each channel, and for each request that waits.
        self._inboxes: dict[str, OnMessage] = {}
        # Bound: the caller's subscriptions.
        self._subscriptions: dict[int, Subscription] = {}
        self._last_sid = 0
        self._ups: list[Callable[[], object]] = []
        self._pongs: list[trio.Event | None] = []
        """The waiter for each PONG that the server owes, in order; None for our own pings."""
        self._room = trio.lowlevel.ParkingLot()
        self._complaints = RateLimitedLog(logger)
        self._owner = Owner("this NATS connection")
        self.on_stray: OnMessage = lambda _message: None
        self.on_room: Callable[[], object] = lambda: None
        # Bound: one for each task that waits for answers.
        self._questions: set[_Question] = set()
        self._inbox_subscription = self.subscribe(f"{self._inbox}.*", self._on_inbox)

    def __repr__(self) -> str:
        state = f"connected to {self._link.server}" if self._link else "not connected"
        return f"<trio_rpc NATS client, {state}>"

    # ---------------------------------------------------------------------------- the verbs

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish a message; see :meth:`Nats.publish`."""
        message = self._encode(subject, data, reply, headers)
        await trio.lowlevel.checkpoint()
        while not self._try_write(message):
            await self._wait_for_room()

    def publish_nowait(
        self,
        subject: str,
        data: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> bool:
        """Publish a message if that needs no waiting, and return whether it was published."""
        return self._try_write(self._encode(subject, data, reply, headers))

    def subscribe(self, subject: str, on_message: OnMessage, *, queue: str = "") -> Subscription:
        """Subscribe; see :meth:`Nats.subscribe`."""
        self._check_open()
        check_subject(subject, pattern=True)
        if queue:
            check_name(queue, "a queue group")
        self._last_sid += 1
        made = Subscription(subject, on_message, queue, self._last_sid)
        self._subscriptions[made.sid] = made
        self._write(p.encode_sub(subject, made.sid, queue))
        return made

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription. Its function is not called again."""
        self._owner.check()
        if self._subscriptions.pop(subscription.sid, None) is not None:
            self._write(p.encode_unsub(subscription.sid))

    async def request(self, subject: str, data: bytes = b"") -> p.Msg:
        """Publish a message, and return the first answer; see :meth:`Nats.request`."""
        answers = await self._ask(subject, data, most=1, seconds=float("inf"))
        if not answers:
            raise ConnectionRefusedError(f"nobody has subscribed to {subject!r} in NATS")
        return answers[0]

    async def gather(self, subject: str, data: bytes = b"", *, seconds: float) -> list[p.Msg]:
        """Publish a message, and return the answers within a time; see :meth:`Nats.gather`."""
        return await self._ask(subject, data, most=MAX_ANSWERS, seconds=seconds)

    async def flush(self) -> None:
        """Wait until the server has handled all written bytes; see :meth:`Nats.flush`."""
        self._owner.check()
        await trio.lowlevel.checkpoint()
        while self._link is None:
            await self._wait_for_room()
        link, answered = self._link, trio.Event()
        self._ping(link, answered)
        await answered.wait()
        if self._link is not link:
            raise trio.BrokenResourceError("the connection to the NATS server was lost")

    def on_up(self, callback: Callable[[], object]) -> None:
        """Call a function after each reconnection; see :meth:`Nats.on_up`."""
        self._ups.append(callback)

    # ------------------------------------------------------------------------- for channels

    async def drain(self, subscription: Subscription) -> None:
        """End a subscription, after the messages that the server has already chosen for it."""
        if subscription.sid in self._subscriptions:
            subscription.is_draining = True
            self._write(p.encode_unsub(subscription.sid))
            with contextlib.suppress(trio.BrokenResourceError):  # they were lost with it
                await self.flush()
            self._subscriptions.pop(subscription.sid, None)

    def new_inbox(self, on_message: OnMessage) -> str:
        """Return a new private subject, whose messages a function takes from now on."""
        token = new_token()
        self._inboxes[token] = on_message
        return f"{self._inbox}.{token}"

    def drop_inbox(self, subject: str) -> None:
        """Stop receiving messages for a private subject."""
        self._inboxes.pop(subject.rpartition(".")[2], None)

    def publish_raw(self, line: bytes, data: bytes) -> None:
        """Write a message whose ``PUB`` line was made in advance; drop it without a connection."""
        if self._link is not None:
            self._link.write(b"%b%d\r\n%b\r\n" % (line, len(data), data))

    @property
    def prefix(self) -> str:
        """The first part of all private subjects."""
        return self._prefix

    @property
    def is_up(self) -> bool:
        """Whether there is a connection to a server."""
        return self._link is not None

    @property
    def has_room(self) -> bool:
        """Whether less than 1 MiB waits to be written."""
        return self._link is None or self._link.has_room

    @property
    def changed_at(self) -> float:
        """The time when the connection was made, or lost if there is none."""
        return self._changed_at

    @property
    def heard_at(self) -> float:
        """The time when the server has sent anything last."""
        return self._changed_at if self._link is None else self._link.heard_at

    @property
    def max_payload(self) -> int:
        """Bytes of the largest payload that the server accepts."""
        return 64 * 1024 if self._link is None else self._link.max_payload

    @property
    def local_host(self) -> str:
        """The address of this machine that the server sees, or ``""``."""
        return "" if self._link is None else self._link.local_host

    @property
    def server(self) -> Server | None:
        """The server of the present connection."""
        return None if self._link is None else self._link.server

    @property
    def failure(self) -> Exception | None:
        """The reason why this client does not connect any more."""
        return self._failure

    # --------------------------------------------------------------------------- the tasks

    async def run(self, started: Callable[[], object]) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled.

        Returns when a server does not accept this client any more; then ``failure`` is set.

        Args:
            started: called when the first connection is made.

        Raises:
            OSError: no server could be reached at first.
            Refused: a server did not accept this client at first.
        """
        if not await self._connect_to_any(started):
            assert self._last_error is not None  # noqa: S101 - each attempt has failed
            raise self._last_error
        try:
            await keep_connected(self._connect_again, first_delay=FIRST_DELAY, max_delay=MAX_DELAY)
        except Refused as exc:
            self._complaints.log(logging.ERROR, "%s", exc)
            self._fail(exc)

    async def aclose(self) -> None:
        """Send the queued bytes, for at most a second, and stop receiving messages."""
        if not self._is_closed and self._link is not None:
            with trio.move_on_after(FLUSH_AT_END):
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.flush()
        self._is_closed = True
        self._end_subscriptions(None)
        self._wake()
        await trio.lowlevel.checkpoint()

    async def _connect_to_any(self, started: Callable[[], object]) -> bool:
        """Try each server once; use the first that accepts this client until it is lost."""
        for _ in range(len(self._servers)):
            if await self._connect(started):
                return True
        return False

    async def _connect_again(self) -> bool:
        return await self._connect(self._tell_up)

    def _tell_up(self) -> None:
        for callback in self._ups:
            callback()

    async def _connect(self, connected: Callable[[], object]) -> bool:
        """Use a connection to the next server as long as it lasts; return whether there was one.

        Raises Refused if the server does not accept this client.
        """
        server = self._servers.next()
        try:
            async with time_limit(CONNECT_TIMEOUT, f"no answer from nats://{server}"):
                link = await open_link(
                    server,
                    credentials=self._credentials,
                    ssl_context=self._ssl_context,
                    name=self._name,
                )
        except OSError as exc:
            self._last_error = exc
            return False
        try:
            await self._use(link, connected)
        finally:
            self._lose()
            with trio.CancelScope(shield=True):
                await link.aclose()
        return True

    async def _use(self, link: Link, connected: Callable[[], object]) -> None:
        """Carry messages over a connection until it is lost."""
        self._link, self._changed_at = link, trio.current_time()
        link.room_made = self._on_room
        for each in self._subscriptions.values():
            if not each.is_draining:
                link.write(p.encode_sub(each.subject, each.sid, each.queue))
        self._learn(link)
        self._wake()
        connected()
        async with trio.open_nursery() as nursery:
            for run in (self._read, self._write_for, self._watch):
                nursery.start_soon(self._until_lost, run, link, nursery.cancel_scope)

    async def _until_lost(
        self, run: Callable[[Link], Any], link: Link, scope: trio.CancelScope
    ) -> None:
        """Run one of the tasks of a connection. When one ends, all end."""
        why: object
        try:
            await run(link)
        except _Replaced as exc:
            why = exc
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError, DecodeError) as exc:
            why = exc.__cause__ or exc
        text = "the connection to the NATS server %s is over: %s"
        self._complaints.log(logging.INFO, text, link.server, one_line(str(why)))
        scope.cancel(reason="the connection to the NATS server is over")

    async def _write_for(self, link: Link) -> None:
        await link.run_writer()

    async def _read(self, link: Link) -> None:
        while True:
            for event in await link.read():
                if type(event) is p.Msg:
                    self._deliver(event)
                else:
                    self._handle(link, event)

    async def _watch(self, link: Link) -> None:
        """Ping a server that is silent; give it up after 2.5 intervals.

        Time in which this program was blocked does not count.
        """
        timer, heard_at = SilenceTimer(self._ping_interval * SILENT_INTERVALS), link.heard_at
        next_ping = trio.current_time() + self._ping_interval
        while True:
            await trio.sleep_until(min(timer.deadline, next_ping))
            now = trio.current_time()
            if link.heard_at > heard_at:
                heard_at = link.heard_at
                timer.heard()
                next_ping = heard_at + self._ping_interval
            if now >= next_ping:
                next_ping = now + self._ping_interval
                self._ping(link, None)
            if now >= timer.deadline and timer.is_over():
                raise trio.BrokenResourceError("it is silent")

    def _ping(self, link: Link, waiter: trio.Event | None) -> None:
        # Bound: a task waits for each of these, except one ping in an interval, of which the
        # connection survives two.
        self._pongs.append(waiter)
        link.write(p.PING)

    # -------------------------------------------------------------------- received events

    def _deliver(self, message: p.Msg) -> None:
        subscription = self._subscriptions.get(message.sid)
        if subscription is None:
            return  # it was sent before the server knew of the unsubscription
        try:
            subscription.on_message(message)
        except Exception as exc:  # noqa: BLE001 - it is logged
            text = "the subscriber to %s failed"
            self._complaints.log(logging.ERROR, text, subscription.subject, exc_info=exc)

    def _on_inbox(self, message: p.Msg) -> None:
        on_message = self._inboxes.get(message.subject.rpartition(".")[2])
        if on_message is None:
            self.on_stray(message)
        else:
            on_message(message)

    def _handle(self, link: Link, event: p.Event) -> None:
        match event:
            case p.Ping():
                link.write(p.PONG)
            case p.Pong():
                waiter = self._pongs.pop(0) if self._pongs else None
                if waiter is not None:
                    waiter.set()
            case p.Info(facts):
                link.learn(facts)
                self._learn(link)
                if facts.get("ldm") and len(self._servers) > 1:
                    raise _Replaced("it is about to be shut down")
            case p.Err(text):
                self._on_error(link, text)
            case p.Ok():
                pass
            case _:
                raise DecodeError("the NATS server sent an operation of clients")

    def _on_error(self, link: Link, text: str) -> None:
        denied = _DENIED.search(text)
        self._complaints.log(logging.WARNING, "NATS server %s: %s", link.server, one_line(text))
        if denied is None:
            return  # the server closes the connection after any other error
        verb, subject = denied.groups()
        if verb.lower() == "publish":
            for question in self._questions:
                if question.subject == subject:
                    question.refuse(f"this client may not publish to {subject!r} in NATS")
            return
        for each in self._subscriptions.values():
            if each.subject == subject:
                each.denied = one_line(text)
        if self._inbox_subscription.denied:
            for question in self._questions:
                question.refuse(NO_ANSWERS)

    def _learn(self, link: Link) -> None:
        for bad in self._servers.learn(link.info, link.server):
            text = "the NATS server %s named %s, which is not an address"
            self._complaints.log(logging.INFO, text, link.server, bad)

    # --------------------------------------------------------------------------- the state

    def _lose(self) -> None:
        self._link, self._changed_at = None, trio.current_time()
        waiters: Iterable[trio.Event | None] = self._pongs
        self._pongs = []
        for waiter in waiters:
            if waiter is not None:
                waiter.set()

    def _fail(self, exc: Exception) -> None:
        self._failure = exc
        for question in self._questions:
            question.done.set()
        self._end_subscriptions(exc)
        self._wake()

    def _end_subscriptions(self, failure: Exception | None) -> None:
        ended, self._subscriptions = list(self._subscriptions.values()), {}
        for each in ended:
            each.on_end(failure)

    def _wake(self) -> None:
        self._room.unpark_all()

    def _on_room(self) -> None:
        self._room.unpark_all()
        self.on_room()

    async def _wait_for_room(self) -> None:
        self._check_open()
        await self._room.park()
        self._check_open()

    def _check_open(self) -> None:
        self._owner.check()
        if self._is_closed:
            raise closed_error()
        if self._failure is not None:
            raise trio.BrokenResourceError(str(self._failure)) from self._failure

    def _encode(
        self, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None
    ) -> bytes:
        self._check_open()
        check_subject(subject)
        if reply:
            check_subject(reply)
        encoded = p.format_headers(headers) if headers else b""
        size, most = len(data) + len(encoded), self.max_payload
        if self._link is not None and size > most:
            raise ValueError(f"a NATS message of {size} bytes; the server accepts {most}")
        return p.encode_pub(subject, data, reply, encoded)

    def _try_write(self, message: bytes) -> bool:
        self._check_open()
        if self._link is None or not self._link.has_room:
            return False
        self._link.write(message)
        return True

    def _write(self, line: bytes) -> None:
        """Write a line that a later connection repeats in its own way."""
        if self._link is not None:
            self._link.write(line)

    async def _ask(self, subject: str, data: bytes, *, most: int, seconds: float) -> list[p.Msg]:
        """Publish a message, and return the answers; none if nobody has subscribed."""
        question = _Question(subject, most)
        self._questions.add(question)
        reply = self.new_inbox(question.on_answer)
        if self._inbox_subscription.denied:
            question.refuse(NO_ANSWERS)
        try:
            await self.publish(subject, data, reply=reply)
            with trio.move_on_after(seconds):
                await question.done.wait()
        finally:
            self.drop_inbox(reply)
            self._questions.discard(question)
        if question.refused:
            raise Refused(question.refused)
        self._check_open()
        return question.answers


class _Question:
    """A message that was published for answers, of which ``most`` are kept."""

    def __init__(self, subject: str, most: int) -> None:
        self.subject = subject
        self.most = most
        self.answers: list[p.Msg] = []
        self.done = trio.Event()
        self.refused = ""
        """The reason why there is no answer, if the server refuses the message or the answers."""

    def on_answer(self, message: p.Msg) -> None:
        if message.status == NO_RESPONDERS:
            self.done.set()
        elif len(self.answers) < self.most:
            self.answers.append(message)
            if len(self.answers) == self.most:
                self.done.set()

    def refuse(self, why: str) -> None:
        """Record that there will be no answer."""
        self.refused = why
        self.done.set()
