"""A NATS server within the test's own program: its work takes no time for a mock clock.

It has the features that channels need: subscriptions with wildcards and queue groups, headers, and
the answer 503 if there is no subscriber. ``lose`` may drop messages, as a network between would.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from dataclasses import dataclass, field

import trio

from helpers.nats_server import PATIENT
from trio_rpc.nats import open_nats
from trio_rpc.nats import parser as p
from trio_rpc.util.one_exception import one_exception
from trio_rpc.wire.limits import DEFAULT_LIMITS

NOBODY = b"NATS/1.0 503\r\n\r\n"


def matches(pattern, subject):
    """Tell whether a subject matches the pattern of a subscription."""
    parts, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        parts, wanted = parts[: len(wanted) - 1], wanted[:-1]
    return len(parts) == len(wanted) and all(
        want in ("*", part) for part, want in zip(parts, wanted, strict=True)
    )


@dataclass(eq=False)
class Client:
    """A connection of a client, and its subscriptions by number."""

    stream: trio.SocketStream
    subscriptions: dict[int, p.Sub] = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    is_frozen: bool = False
    unsent: list[bytes] = field(default_factory=list)
    wakes: trio.Event = field(default_factory=trio.Event)

    def write(self, data):
        self.unsent.append(data)
        self.wakes.set()

    async def run_writer(self):
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await self.wakes.wait()
                self.wakes = trio.Event()
                data, self.unsent = b"".join(self.unsent), []
                await self.stream.send_all(data)


class Broker:
    """Answers clients, and passes their messages on.

    Attributes:
        lose: called with each message before it is passed on; True drops it.
        refuse: called with the CONNECT of each client; returns the text of an error, or None.
        info: the INFO for new clients.
        clients: the connections that are open.
        published: all messages of clients, in order.
    """

    def __init__(self, **info):
        self.info = {"headers": True, "max_payload": 1024 * 1024, **info}
        self.lose = lambda _message: False
        self.refuse = lambda _options: None
        self.clients = []
        self.published = []
        self.port = 0

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED):
        """Accept clients, until cancelled."""
        async with trio.open_nursery() as nursery:
            serve = functools.partial(trio.serve_tcp, host="127.0.0.1")
            listeners = await nursery.start(serve, self.serve, self.port)
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started(self)

    async def serve(self, stream):
        client = Client(stream)
        parser = p.Parser()
        client.write(p.encode_info(self.info))
        self.clients.append(client)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.run_writer)
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while data := await stream.receive_some(65536):
                        for event in parser.feed(bytes(data)):
                            self.handle(client, event)
                nursery.cancel_scope.cancel()
        finally:
            self.clients.remove(client)

    def drop(self, client):
        """Cut the connection of a client."""
        client.stream.socket.close()

    def handle(self, client, event):
        match event:
            case p.Connect(options):
                client.options = dict(options)
                if (why := self.refuse(options)) is not None:
                    client.write(b"-ERR '%s'\r\n" % why.encode())
            case p.Ping():
                client.write(p.PONG)
            case p.Sub():
                client.subscriptions[event.sid] = event
            case p.Unsub(sid):
                client.subscriptions.pop(sid, None)
            case p.Pub():
                self.published.append(event)
                if not self.lose(event):
                    self.route(client, event)

    def route(self, sender, message):
        found, groups = [], {}
        for client in self.clients:
            for sub in client.subscriptions.values():
                if matches(sub.subject, message.subject):
                    kind = groups.setdefault(sub.queue, []) if sub.queue else found
                    kind.append((client, sub))
        found += [secrets.choice(members) for members in groups.values()]
        for client, sub in found:
            client.write(
                p.encode_msg(message.subject, sub.sid, message.data, message.reply, message.headers)
            )
        if not found and message.reply:
            for sid, sub in sender.subscriptions.items():
                if matches(sub.subject, message.reply):
                    sender.write(p.encode_msg(message.reply, sid, b"", "", NOBODY))


@contextlib.asynccontextmanager
async def open_broker(**info):
    """Run a broker for a block."""
    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            broker = await nursery.start(Broker(**info).run)
            try:
                yield broker
            except BaseException as exc:
                body.append(exc)
                raise
            finally:
                nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def open_channels(broker, *limits, options=PATIENT, service="market"):
    """Open both ends of a channel over a broker for the block."""
    ours, theirs = limits or (DEFAULT_LIMITS, DEFAULT_LIMITS)
    async with (
        open_nats(broker.url, options=options) as client,
        open_nats(broker.url, options=options) as server,
        await server.listen(service, limits=theirs) as listener,
        client.open_channel(service, limits=ours) as opened,
    ):
        connection = await listener.accept()
        async with connection.prepared() as accepted:
            yield opened, accepted


@contextlib.asynccontextmanager
async def open_broker_pair(*limits):
    """Open both ends of a channel over a broker of its own for the block."""
    async with open_broker() as broker, open_channels(broker, *limits) as ends:
        yield ends
