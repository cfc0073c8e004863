"""Runs a session: its tasks, the handshake, the watch over silence, and the orderly end.

Who owns which task
===================

The block that opened the session owns one nursery. In it run the block's own body, the handlers, the
reader, and :func:`run`, which owns a nursery of its own with the writer and the watch. ``run`` and the reader
are shielded: when the block is cancelled, the calls in its body still have to tell the other end so
and hear that it is done (law 2), and cancelled handlers still owe their terminal messages (law 4). They end
when the session does, within ``Limits.time_to_die``; the block sees to that in its ``finally``, so the
shield never outlives the block's wish to leave.

Nobody but the writer waits to write, and nobody but the reader acts on what arrives, though a caller may receive its own
Reply (``receiver.py``). Nobody can cancel either from outside.
"""

from __future__ import annotations

from typing import Protocol as Interface
from typing import runtime_checkable

import trio

from trio_rpc.errors import Refused
from trio_rpc.protocol.states import Half
from trio_rpc.session.context import handled_call, outgoing_metadata
from trio_rpc.session.core import Core
from trio_rpc.session.life import Stage, as_cause
from trio_rpc.session.reader import CHANNEL_ERRORS, Actions, Reader
from trio_rpc.wire import messages as m

__all__ = ["run"]


async def run(core: Core, nursery: trio.Nursery) -> None:
    """Run the session until it is over and its channel is closed.

    Args:
        core: the session, fresh.
        nursery: where its handlers run.
    """
    await _Driver(core, nursery).run()


@runtime_checkable
class _Renews(Interface):
    """What a channel may offer besides: to do without a connection that seems to be dead."""

    def renew(self) -> bool: ...


class _Driver:
    def __init__(self, core: Core, nursery: trio.Nursery) -> None:
        self._core = core
        self._protocol = core.protocol
        self._channel = core.channel
        self._nursery = nursery
        self._draining = trio.CancelScope()
        incoming, outgoing = core.incoming, core.outgoing
        actions: Actions = {
            m.Request: incoming.start_request,
            m.Notification: incoming.start_notification,
            m.Cancel: incoming.cancel,
            m.Reply: outgoing.finish,
            m.ReplyErr: outgoing.finish,
            m.Hello: self._on_hello,
            m.Welcome: lambda _: self._check_open(),
            m.Goodbye: self._on_goodbye,
            m.Pong: core.on_pong,
            m.Credit: lambda _: outgoing.let_in(),
            m.Item: outgoing.item,
            m.EndOfItems: outgoing.end_of_items,
            m.ItemCredit: incoming.item_credit,
            m.Started: outgoing.started,
        }
        self._reader = Reader(core, nursery, actions, self._lose)

    async def run(self) -> None:
        # Handlers run in copies of this context. They are the peer's calls: what the task that opened the
        # session happens to be handling, or to send along, is none of their business.
        handled_call.set(None)
        outgoing_metadata.set(None)
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._write, name="trio_rpc writer")
                tasks.start_soon(self._watch, name="trio_rpc watch")
                try:
                    self._protocol.hello(self._core.options.credentials)
                    self._core.writer.wake()
                    self._reader.start()
                    await self._core.life.ended()
                finally:
                    self._core.stop()
                    self._reader.stop()
                    # A channel that fails in a way of its own has cancelled these tasks.
                    with trio.CancelScope(shield=True):
                        await self._finish()
                    tasks.cancel_scope.cancel()

    # ── the tasks ────────────────────────────────────────────────────────────────────────────

    async def _write(self) -> None:
        try:
            await self._core.writer.run()
        except CHANNEL_ERRORS as exc:
            self._lose(exc)
        except Exception as exc:
            self._lose(exc)
            raise  # it is a bug of the channel's

    def _lose(self, exc: Exception) -> None:
        """The channel is gone: nothing that is queued can leave any more."""
        orderly = isinstance(exc, trio.EndOfChannel) and self._protocol.theirs is Half.LEAVING
        self._core.end(None if orderly else as_cause(exc))
        self._protocol.end()
        self._draining.cancel()

    async def _watch(self) -> None:
        """Bound the handshake, then the silence (a silent peer is found, a busy one is not)."""
        limits, life = self._core.limits, self._core.life
        with trio.move_on_after(limits.handshake_timeout):
            await life.begun()
        if life.stage is Stage.OPENING:
            self._core.end(TimeoutError(f"no handshake within {limits.handshake_timeout:g} s"))
        unanswered = 0
        heard: object = None
        while True:
            await self._core.outgoing.keep_time(limits.keepalive_interval)
            # If it was us who were stuck, the answers lie unread: let the reader see them first.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if life.is_over:
                return
            if self._heard() != heard:
                heard, unanswered = self._heard(), 0
            elif unanswered == limits.keepalive_pings:
                if isinstance(self._channel, _Renews) and self._channel.renew():
                    unanswered = 0
                    continue
                silence = limits.keepalive_interval * (unanswered + 1)
                self._core.end(TimeoutError(f"the other end was silent for {silence:g} s"))
            else:
                unanswered += 1
                self._protocol.rest()
                self._protocol.ping(0)
                self._core.writer.wake()

    def _heard(self) -> object:
        """Return what changes when anything comes: a part of a large packet is a sign of life, too."""
        return self._protocol.counters.packets_received, getattr(self._channel, "heard", None)

    async def _finish(self) -> None:
        """Let handlers end, get their last words out, and close the channel, all in bounded time."""
        core, protocol = self._core, self._protocol
        with trio.move_on_after(core.limits.time_to_die):
            while core.incoming.running:
                await core.life.changed.wait()
            if protocol.ours is not Half.ENDED:
                if protocol.ours in (Half.GREETED, Half.OPEN):
                    protocol.goodbye(*core.life.goodbye())  # a refusal, if we were GREETED
                with self._draining:
                    await core.writer.drain()
        protocol.end()
        with trio.move_on_after(core.limits.time_to_die):
            await self._channel.aclose()
        core.over.set()

    # ── the handshake and the Goodbye ────────────────────────────────────────────────────────

    def _on_hello(self, message: m.Hello) -> None:
        authenticate = self._core.options.authenticate
        if authenticate is None:
            self._accept_peer()
        else:
            self._nursery.start_soon(self._authenticate, name="trio_rpc authenticate")

    async def _authenticate(self) -> None:
        core = self._core
        authenticate = core.options.authenticate
        assert authenticate is not None  # noqa: S101 - the caller has looked
        try:
            await authenticate(core.incoming.session, self._protocol.peer.credentials)
        except Refused as exc:
            core.end(exc)
        else:
            if core.life.stage is Stage.OPENING:
                self._accept_peer()

    def _accept_peer(self) -> None:
        self._core.incoming.table = self._core.tables(self._core.incoming.session)
        self._protocol.welcome()
        self._core.writer.wake()
        self._check_open()

    def _check_open(self) -> None:
        if self._protocol.ours is self._protocol.theirs is Half.OPEN:
            self._core.life.move(Stage.OPEN)

    def _on_goodbye(self, message: m.Goodbye) -> None:
        core = self._core
        if self._protocol.theirs is Half.ENDED:
            core.end(Refused(f"the other end refused the session: {message.message}"))
            return
        if core.life.stage is Stage.OPEN:
            core.life.farewell = f"{message.message} ({message.code})"
            core.life.move(Stage.CLOSING)
        core.handler_ended()
