"""The reader: a role that passes from task to task, not a separate task.

Most handlers answer without ever waiting. A task and a cancel scope for each of them would cost
more than the rest of the call, above all a turn of Trio's run loop. So the task that reads also
runs an eager step: the handler's code up to its first yield to Trio. A handler that returns before
that has ended. The first handler that has to wait keeps the task and its scope, and a new task
takes over the reading, in the middle of a packet if necessary.

A handler cannot see any of this. Handlers begin in the order of arrival (law 9), in a task of the
session's nursery (law 6), inside a scope that no other waiting handler has been in, and in a copy
of the context that the session was opened in.

A session whose block is cancelled still has messages to receive (law 2). The reader gets the
cancellation at its next wait, and reads on under a shield. From then on no handler begins.

Optimisations
=============

The session is correct without these. Each saves some per cent of a call or of a handshake.

1. A server's reader first checks whether the client's Hello has arrived (``receive_nowait``). If
   so, its own Hello and its Welcome leave in one packet. Otherwise Hello leaves at once.
2. The packet that opens a session is answered two turns later. By then the task that waited for the
   session may have made its first call, which leaves in one packet with Welcome. If no task waits,
   nothing is delayed.
3. All immediate answers to a packet leave in one packet, before the next one is received.
4. After ``EVENTS_PER_TURN`` messages other tasks run. The rest of the packet is handled after that.
5. If only one call is in flight, its caller receives its own Reply (``io/receiver.py``). So after
   the Reply to the last call in flight, the reader lets two turns pass: by then the caller may have
   made its next call, and receives.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import trio

from trio_rpc.channels.errors import CHANNEL_ERRORS
from trio_rpc.errors import DecodeError, Refused, RemoteProtocolError
from trio_rpc.protocol.streams import ItemRun
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.core import Core
from trio_rpc.session.handler import CANCELLED, Outcome
from trio_rpc.session.lifecycle import as_cause
from trio_rpc.util.raised import check_repr
from trio_rpc.wire import messages as m

__all__ = ["Actions", "Reader", "two_turns"]

# Looking a class up in its module takes longer than everything done with it.
_REQUEST, _REPLY, _ITEM = m.Request, m.Reply, m.Item

EVENTS_PER_TURN = 24
"""Messages after which the reader lets other tasks run; a packet can hold tens of thousands.

This also keeps both ends busy: answers to the first messages leave, and the peer works on them,
while this end reads the next messages. Reading a whole packet first made 64 calls in flight move
back and forth in one block, with one end always idle, and took 1.7 times as long.
"""

PACKETS_PER_TURN = 32
"""Packets that the reader takes in one turn while calls are queued, in place of one."""


class Actions(Protocol):
    """The reader's owner, which acts on most messages."""

    def act(self, event: Any) -> IncomingCall | None:
        """Act on one message; return a call if its handler has to wait."""

    def lost(self, exc: Exception) -> None:
        """End the session, since its channel is lost."""

    async def end(self) -> None:
        """Finish in order, and close the channel, since the session is over."""


class _NoActions:
    """The actions of a session that is over, which cannot be lost."""

    def act(self, event: Any) -> IncomingCall | None:
        pass

    def lost(self, exc: Exception) -> None:
        pass

    async def end(self) -> None:
        pass


_NO_ACTIONS = _NoActions()


class Reader:
    """Receives packets and acts on their messages until the session is over.

    Args:
        core: the session.
        nursery: the nursery of the tasks that read and run handlers.
        actions: acts on messages other than Request and Reply, on a lost channel, and on the end.
        is_stoppable: whether a cancellation from outside ends the session. Otherwise the reader
            reads on under a shield, until the block's body has ended.
    """

    def __init__(
        self, core: Core, nursery: trio.Nursery, actions: Actions, *, is_stoppable: bool
    ) -> None:
        self._core = core
        self._nursery = nursery
        self._actions = actions
        self._is_stoppable = is_stoppable
        self._left = EVENTS_PER_TURN
        self._scope: trio.CancelScope | None = None
        """The cancel scope of the task that reads."""
        self._load = core.load
        self._is_resuming = False
        """The session waits for its turn, or the task of its turn does not run yet."""
        self._ahead = 0
        """Packets that were read in this turn, after the first one."""
        self.looks_first = False
        """Whether optimisation 1 is still to be done."""
        self.has_opened = False
        """The current packet has opened the session, and a task waits for that (optimisation 2)."""

    def start(self) -> None:
        """Start a new task that reads."""
        self._scope = None
        self._nursery.start_soon(self.lead, name="trio_rpc reader")

    def stop(self) -> None:
        """Stop reading: the session is over."""
        if self._scope is not None:
            self._scope.cancel(reason="the session is over")

    def unshield(self) -> None:
        """Unshield the reader, since the block's body has ended."""
        self._is_stoppable = True
        if self._scope is not None:
            self._scope.shield = False

    def let_go(self) -> None:
        """Drop the references to this object. Nothing is read now, but handlers may still end."""
        self._load.leave(self._take_turn)
        self._actions = _NO_ACTIONS

    @trio.lowlevel.enable_ki_protection
    async def lead(self) -> None:
        """Read until the session is over, and then end it.

        If a handler has to wait before that, start another reader, and run that handler.
        """
        shield = self._core.incoming.is_cancelled and not self._is_stoppable
        scope = trio.CancelScope(shield=shield)
        self._core.incoming.scope = self._scope = scope
        try:
            await self._handle(scope, Reader._read, Reader.start)
        except Exception:
            if self._scope is scope:
                # A bug ends the nursery at once, so the session ends in a task of its own.
                self._scope = None
                self._nursery.start_soon(self._actions.end, name="trio_rpc end")
            raise
        finally:
            if self._scope is scope:  # no other task reads
                self._scope = None
                await self._actions.end()

    def resume(self) -> None:
        """Begin handlers whose Requests have waited, if they may, in this session's next turn."""
        incoming = self._core.incoming
        if incoming.waiting and self._core.protocol.may_begin and not self._is_resuming:
            self._is_resuming = True
            self._load.want_turn(self._take_turn)

    def _take_turn(self) -> None:
        """Begin waiting handlers in a new task."""
        start = functools.partial(self._nursery.start_soon, self._resume, name="trio_rpc resumer")
        # Not in the context of the task that made room.
        self._core.incoming.context.copy().run(start)

    @trio.lowlevel.enable_ki_protection
    async def _resume(self) -> None:
        await self._handle(trio.CancelScope(), Reader._begin_waiting, Reader.resume)

    async def _begin_waiting(self, scope: trio.CancelScope) -> IncomingCall | None:
        """Begin waiting handlers; return the first that has to wait again, or None."""
        incoming = self._core.incoming
        try:
            await two_turns()  # all sessions first read the packets that have arrived
            readers, incoming.scope = incoming.scope, scope
            try:
                call = incoming.begin_waiting(EVENTS_PER_TURN)
            finally:
                incoming.scope = readers
        finally:
            self._is_resuming = False
            self.resume()
            self._load.turn_over()
        if call is None:
            self._core.writer.write_now()
        return call

    async def _handle(
        self,
        scope: trio.CancelScope,
        begin: Callable[[Reader, trio.CancelScope], Awaitable[IncomingCall | None]],
        go_on: Callable[[Reader], None],
    ) -> IncomingCall | None:
        """Begin handlers until one has to wait; call ``go_on``, which begins others; run it.

        1. Inside the scope, ``begin`` runs eager steps, and may return a call that has to wait.
        2. Its handler keeps this task and the scope. ``go_on`` starts the task that begins further
           handlers, before the handler continues.
        3. Once the scope has been left, end the call with its result, its cancellation or its
           exception. An exception that is not for its caller also leaves this task.
        4. An exception without such a call is a bug, which loses the session, or ends the program.
           In the second case ``go_on`` is called, so that other calls still get their answers.
        """
        incoming = self._core.incoming
        call = result = None
        try:
            with scope:
                call = await begin(self, scope)
                if call is not None:
                    go_on(self)
                    result = await incoming.finish(call)
        except BaseException as exc:
            if call is None:
                if isinstance(exc, Exception):
                    # A bug in the channel, or in a function that makes services.
                    self._core.lifecycle.lose(exc)
                    check_repr(exc)
                elif not self._core.lifecycle.is_over:
                    go_on(self)  # (4)
                raise
            if not incoming.end_raised(call, exc):
                raise
        else:
            if call is not None:
                incoming.end(call, CANCELLED if scope.cancelled_caught else Outcome(result))
        finally:
            if call is not None:
                self._core.writer.send()
        return call

    async def _read(self, scope: trio.CancelScope) -> IncomingCall | None:
        """Receive and act; return the first call whose handler has to wait, or None at the end."""
        while True:
            try:
                return await self._read_on()
            except trio.Cancelled:
                if scope.cancel_called:
                    scope.shield = True  # the Cancelled ends at this scope, below the nursery
                    raise
                self._core.incoming.is_cancelled = True
                if self._is_stoppable:
                    self._core.lifecycle.stop()
                    raise
                # A cancelled receive() has taken nothing, so nothing is lost.
                scope.shield = True

    async def _read_on(self) -> IncomingCall | None:
        """Receive and act. The numbers are those of the optimisations at the top of this module."""
        core, receiver = self._core, self._core.receiver
        try:
            while not core.lifecycle.is_over:
                if receiver.events is None:
                    # Only here: a function that makes services may raise such an error as a bug.
                    try:
                        if not self._has_looked():
                            await receiver.receive()
                    except CHANNEL_ERRORS as exc:
                        self._actions.lost(exc)
                        return None
                core.incoming.now = receiver.arrived
                was_alone = len(core.outgoing.calls) == 1
                call = self._act()
                if call is not None:
                    return call
                if self.has_opened:  # (2)
                    self.has_opened = False
                    await two_turns()
                core.writer.write_now()  # (3)
                if core.incoming.waiting:
                    self.resume()
                    if receiver.events is None and self._reads_ahead():
                        continue
                if receiver.events is not None:
                    await trio.lowlevel.checkpoint()  # (4)
                elif was_alone and not core.outgoing.calls and receiver.callers_receive:
                    await two_turns()  # (5)
        except DecodeError as exc:
            core.lifecycle.lose(as_cause(exc), "peer")
        except (RemoteProtocolError, Refused) as exc:
            core.lifecycle.lose(exc, "peer")
        return None

    def _reads_ahead(self) -> bool:
        """Read another packet in this turn, if one has arrived, since its calls are only queued."""
        self._ahead += 1
        if self._ahead > PACKETS_PER_TURN:
            self._ahead = 0
            return False
        try:
            return self._core.receiver.receive_nowait()
        except CHANNEL_ERRORS:
            return False  # receive() raises it as well

    def _has_looked(self) -> bool:
        """Do optimisation 1; return whether a packet has arrived."""
        if not self.looks_first:
            return False
        self.looks_first = False
        has_arrived = self._core.receiver.receive_nowait()
        if not has_arrived:
            self._core.writer.write_now()
        return has_arrived

    def _act(self) -> IncomingCall | None:
        """Act on one turn's events; forget the packet when it has no more."""
        core = self._core
        lifecycle, receiver = core.lifecycle, core.receiver
        incoming, outgoing = core.incoming, core.outgoing
        # After the end of the session nothing more is decoded.
        events: Iterable[Any] = () if lifecycle.is_over else receiver.events or ()
        for event in events:
            if lifecycle.is_over:
                return None  # it crossed the end: no caller waits, and no handler may start
            kind, call = type(event), None
            if kind is _REQUEST:
                call = incoming.start_request(event)
            elif kind is _REPLY:
                outgoing.finish(event)
            elif kind is _ITEM:
                outgoing.items(event.id, (event,))
            elif kind is ItemRun:
                outgoing.items(event.id, event.items)
                self._left -= len(event.items) - 1
            else:
                call = self._actions.act(event)
            self._left -= 1
            if call is not None:
                return call
            if self._left <= 0:
                self._left = EVENTS_PER_TURN
                return None
        receiver.events = None
        self._left = EVENTS_PER_TURN
        outgoing.let_callers_in()
        if lifecycle.stage.is_closing:
            lifecycle.activity_ended()  # the close may be waiting for this Reply
        return None


async def two_turns() -> None:
    """Wait two turns: all runnable tasks run, and then the tasks that they wake."""
    await trio.lowlevel.cancel_shielded_checkpoint()
    await trio.lowlevel.cancel_shielded_checkpoint()
