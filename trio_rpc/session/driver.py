"""Runs a session: its tasks, the handshake, and the orderly end.

The owner of each task
======================

The block that opened the session owns one nursery. It runs the block's body, the handlers, the
reader, the watchman (``watch.py``), and the writer, once a packet could not be written at once. The
task that reads when the session ends also ends it in order (:meth:`_Driver.end`). When the block is
cancelled, the calls in its body still have to send their Cancels and wait for the confirmation
(law 2), and cancelled handlers still owe their terminal messages (law 4). So the watchman and the
writer are shielded, and the reader reads on under a shield. These tasks end when the session does,
within ``Limits.shutdown_timeout``. The block ensures that in its ``finally``, so the shield never
delays the block for longer.

A server's session has no body, and its task is the first reader, without a shield, so that
cancelling the task ends the session. Its server has one watchman for all sessions. When a body has
finished, its reader is unshielded as well: the block only waits for it, so a cancellation ends the
session at once.

Only the writer waits to write, and only the reader acts on messages, though a caller may receive
its own Reply (``receiver.py``). Neither can be cancelled from outside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, ClassVar

import trio

from trio_rpc.channels.errors import CHANNEL_ERRORS, detail_of
from trio_rpc.channels.optional import lingers, nowait_close
from trio_rpc.errors import LocalProtocolError, Refused
from trio_rpc.protocol.states import Half
from trio_rpc.protocol.streams import Event, ItemRun
from trio_rpc.session.calls.context import handled_call, outgoing_metadata
from trio_rpc.session.calls.eager import is_awaitable
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.core import Core
from trio_rpc.session.draining import DRAINING
from trio_rpc.session.lifecycle import Stage, as_cause
from trio_rpc.session.reader import Reader
from trio_rpc.session.session import Session
from trio_rpc.session.watch import Watch, Watchman
from trio_rpc.util.contexts import copy_of, own_decimal_context
from trio_rpc.util.progress import wait_while_progressing
from trio_rpc.util.raised import check_repr
from trio_rpc.util.text import one_line
from trio_rpc.wire import messages as m

__all__ = ["run", "start"]

_REFUSALS = ("refused", "overloaded", "protocol_error")
"""The codes of a Goodbye in place of Welcome that refuse the session."""


def start(core: Core, nursery: trio.Nursery) -> None:
    """Begin a session; tasks in ``nursery`` run it until it is over and its channel is closed.

    Args:
        core: a fresh session.
        nursery: the nursery of its handlers, its reader, its writer and its watchman.

    Raises EncodeError if the credentials are too large. The caller then stops the session.
    """
    watchman = Watchman(is_shielded=True)
    driver = _Driver(core, nursery, watchman, own_watchman=watchman)
    copy_context().run(driver.start)
    core.writer.write_now()


async def run(core: Core, nursery: trio.Nursery, watchman: Watchman) -> None:
    """Run a session, at first in this task, until a handler keeps it, or until its end.

    A cancellation ends the session.

    Args:
        core: a fresh session.
        nursery: the nursery of its handlers, its other readers and its writer.
        watchman: looks after the sessions of a server.
    """
    _forget_caller()
    driver = _Driver(core, nursery, watchman)
    try:
        reader = driver.begin(looks_first=True)
    except BaseException:
        await driver.end()
        raise
    task = trio.lowlevel.current_task()
    name = task.name
    try:
        await reader.lead()
    finally:
        task.name = name  # a handler may have had the task


def _forget_caller() -> None:
    """Clear the current call, so that handlers do not inherit it with the copied context.

    Handlers run the peer's calls. The call and the metadata of the task that opened the session do
    not concern them.
    """
    if handled_call.get() is not None:  # setting a variable makes the context larger
        handled_call.set(None)
    if outgoing_metadata.get() is not None:
        outgoing_metadata.set(None)


class _Driver:
    def __init__(
        self,
        core: Core,
        nursery: trio.Nursery,
        watchman: Watchman,
        *,
        own_watchman: Watchman | None = None,
    ) -> None:
        self._core = core
        self._protocol = core.protocol
        self._nursery = nursery
        self._watch = core.lifecycle.watch = Watch(core, watchman)
        self._watchman = watchman
        self._own_watchman = own_watchman
        """The watchman of a session whose block may be cancelled, and which then goes on."""
        self._writing: trio.CancelScope
        self._draining: trio.CancelScope | None = None
        self._authenticating: trio.CancelScope | None = None
        self._reader = Reader(core, nursery, self, is_stoppable=own_watchman is None)
        core.reader = core.services.reader = self._reader
        core.services.nursery = core.incoming.nursery = nursery

    def start(self) -> None:
        """Start the tasks of a session with a block; the reader runs in a copy of this context."""
        _forget_caller()
        if self._own_watchman is not None:
            self._nursery.start_soon(self._own_watchman.run, name="trio_rpc watch")
        self._reader.start()  # so that the session ends in order, whatever happens next
        self.begin()

    def begin(self, *, looks_first: bool = False) -> Reader:
        """Queue Hello; return the reader, which may then begin."""
        self._core.incoming.context = copy_of(copy_context())
        self._core.writer.start(self)
        self._watchman.begin(self._watch)
        self._protocol.hello(
            self._core.options.credentials,
            self._core.session_id,
            self._core.lifecycle.retry_after,
        )
        self._reader.looks_first = looks_first
        return self._reader

    async def end(self) -> None:
        """End the session: finish in order, close the channel, and drop all references to it."""
        core = self._core
        core.lifecycle.stop()
        # A server's nursery is not cancelled when its session ends; it would wait for the task.
        if self._authenticating is not None:
            self._authenticating.cancel(reason="the session is over")
        try:
            await self._finish()
        finally:
            if core.writer.stop():
                self._writing.cancel(reason="the session is over")
            self._reader.let_go()
            self._watch.end()
            if self._own_watchman is not None:
                self._own_watchman.stop()
            core.lifecycle.channel_closed()
            core.let_go()
        if self._watch.bug is not None:
            raise self._watch.bug

    # ── the tasks ────────────────────────────────────────────────────────────────────────────

    def start_writer(self) -> None:
        """Start the task that writes."""
        self._writing = trio.CancelScope(shield=True)
        # Any task may be the first to need it, and it must not inherit that task's context.
        start = functools.partial(self._nursery.start_soon, self._write, name="trio_rpc writer")
        self._core.incoming.context.copy().run(start)

    @trio.lowlevel.enable_ki_protection
    async def _write(self) -> None:
        try:
            with self._writing:
                await self._core.writer.run()
        except CHANNEL_ERRORS as exc:
            await self._hear_out()
            self.lost(exc)
        except Exception as exc:
            self.lost(exc)
            raise  # it is a bug in the channel

    async def _hear_out(self) -> None:
        """Wait until the reader has handled arrived messages: they may say why writing failed."""
        self._core.incoming.is_cancelled = True  # the answer of a handler could not be sent
        counters = self._protocol.counters
        await wait_while_progressing(
            lambda: counters.messages_received, self._core.limits.shutdown_timeout
        )

    def lost(self, exc: Exception) -> None:
        """End the session, since its channel is lost and queued messages cannot leave."""
        # After a Goodbye it does not matter how the peer closes its socket.
        orderly = self._protocol.theirs is Half.LEAVING
        cause = None if orderly else as_cause(exc)
        self._core.lifecycle.lose(cause, "network", detail_of(exc))
        self._protocol.end()
        if self._draining is not None:
            self._draining.cancel()

    async def _finish(self) -> None:
        """Wait for handlers, send the last messages and close the channel, in bounded time.

        1. Wait for the handlers, which have been cancelled.
        2. Unless this end's half has ended, send Goodbye if that is missing, and drain the queue.
        3. Let a drained channel linger: while the peer sends, closing it would cause a reset, which
           can discard the last messages. In a FINISHED session the peer sends nothing more.
        4. Close the channel.
        """
        core, protocol = self._core, self._protocol
        deadline = trio.current_time() + core.limits.shutdown_timeout
        if core.incoming.running:  # (1)
            with trio.CancelScope(deadline=deadline, shield=True):
                while core.incoming.running:
                    await core.lifecycle.wait_changed()
        lingering = None
        if protocol.ours is not Half.ENDED:  # (2)
            lingering = None if core.lifecycle.stage is Stage.FINISHED else lingers(core.channel)
            if protocol.ours in (Half.GREETED, Half.OPEN):
                protocol.goodbye(*core.lifecycle.goodbye())  # a refusal, if this end was GREETED
            core.writer.write_now()
            if not core.writer.is_done:
                with trio.CancelScope(deadline=deadline, shield=True) as self._draining:
                    await core.writer.drain()
        may_linger = core.writer.is_done
        protocol.end()
        if lingering is not None and may_linger:  # (3)
            with trio.move_on_after(core.limits.shutdown_timeout, shield=True):
                await lingering.linger()
        closing = nowait_close(core.channel)
        if closing is None or not closing.close_nowait():  # (4)
            with trio.move_on_after(core.limits.shutdown_timeout, shield=True):
                await core.channel.aclose()

    # ── actions ──────────────────────────────────────────────────────────────────────────────

    def act(self, event: Any) -> IncomingCall | None:
        """Act on a message; return a call if its handler has to wait."""
        return self._ACTIONS[type(event)](self, event)

    _ACTIONS: ClassVar[Mapping[type[Event], Callable[[_Driver, Any], IncomingCall | None]]] = {
        m.Request: lambda self, event: self._core.incoming.start_request(event),
        m.Notification: lambda self, event: self._on_notification(event),
        m.Cancel: lambda self, event: self._core.incoming.cancel(event),
        m.Reply: lambda self, event: self._core.outgoing.finish(event),
        m.ReplyErr: lambda self, event: self._core.outgoing.finish(event),
        m.Hello: lambda self, event: self._on_hello(event),
        m.Welcome: lambda self, _: self._check_open(),
        m.Goodbye: lambda self, event: self._on_goodbye(event),
        m.Pong: lambda self, event: self._core.on_pong(event),
        m.Credit: lambda self, event: self._on_credit(event),
        m.Item: lambda self, event: self._core.outgoing.items(event.id, (event,)),
        ItemRun: lambda self, event: self._core.outgoing.items(event.id, event.items),
        m.EndOfItems: lambda self, event: self._core.outgoing.end_of_items(event),
        m.Started: lambda self, event: self._core.outgoing.started(event),
    }

    # ── the handshake and the Goodbye ────────────────────────────────────────────────────────

    def _on_hello(self, message: m.Hello) -> None:
        core = self._core
        if core.options.authenticate is None:
            self._accept_peer()
        else:
            session = core.incoming.session
            self._authenticating = trio.CancelScope()
            self._nursery.start_soon(self._authenticate, session, name="trio_rpc authenticate")

    async def _authenticate(self, session: Session) -> None:
        core = self._core
        authenticate = core.options.authenticate
        assert authenticate is not None  # noqa: S101 - checked by the caller
        assert self._authenticating is not None  # noqa: S101 - made by the caller
        own_decimal_context()  # the other variables already belong to this task
        try:
            with self._authenticating:
                result: Any = authenticate(session, self._protocol.peer.credentials)
                _check_answer(await result if is_awaitable(result) else result)
        except Refused as exc:
            # A refusal is not a bug, so its traceback is not needed. It refers to the session.
            core.lifecycle.lose(exc.with_traceback(None))
        except Exception as exc:
            check_repr(exc)
            raise
        else:
            if core.lifecycle.stage is Stage.OPENING:
                self._accept_peer()
                core.writer.write_now()

    def _accept_peer(self) -> None:
        # A function that makes services runs in its own context, as handlers do.
        incoming = self._core.incoming
        services = self._core.services
        try:
            must_enter = copy_of(incoming.context).run(services.begin, incoming.session)
        except Exception as exc:
            check_repr(exc)
            raise
        if must_enter:
            self._nursery.start_soon(self._enter_services, name="trio_rpc services")
        else:
            self._welcome()

    async def _enter_services(self) -> None:
        await self._core.services.enter()
        if self._core.lifecycle.stage is Stage.OPENING:
            self._welcome()
            self._core.writer.write_now()

    def _welcome(self) -> None:
        self._protocol.welcome()
        self._check_open()

    def _check_open(self) -> None:
        core = self._core
        if self._protocol.ours is self._protocol.theirs is Half.OPEN:
            self._watch.opened()
            self._reader.has_opened = core.lifecycle.when_open is None
            core.lifecycle.open()

    def _on_notification(self, message: m.Notification) -> IncomingCall | None:
        if message.method != DRAINING:
            return self._core.incoming.start_notification(message)
        self._core.lifecycle.peer_begins_to_drain()
        self._protocol.grant_notifications(1)
        return None

    def _on_credit(self, message: m.Credit) -> None:
        if message.id is None:
            self._core.outgoing.let_in()
        else:
            self._core.incoming.items_wanted(message.id)

    def _on_goodbye(self, message: m.Goodbye) -> None:
        core = self._core
        why = one_line(message.message, 1000)  # it goes into errors and logs
        if self._protocol.theirs is Half.ENDED and message.code in _REFUSALS:
            is_for_now = message.code == "overloaded"
            retry_after = self._protocol.peer.retry_after if is_for_now else None
            text = f"the other end refused the session: {why}"
            core.lifecycle.lose(Refused(text, retry_after=retry_after), "peer")
        elif message.code == "protocol_error":
            text = f"the other end says that this end broke the protocol: {why}"
            core.lifecycle.lose(LocalProtocolError(text), "peer")
        else:
            core.lifecycle.peer_closes(_text_of(message.code, why))


def _text_of(code: str, why: str) -> str:
    """Return the text of a Goodbye for people. The code "done" says nothing more than the text."""
    if code == "done" and why:
        return why
    return f"{why} ({one_line(code, 100)})".lstrip()


def _check_answer(answer: object) -> None:
    # An authenticate that returned False to refuse a peer would otherwise accept every peer.
    if answer is not None:
        kind = type(answer).__name__
        text = f"authenticate returned a {kind}: it must raise Refused to refuse the peer"
        raise TypeError(f"{text}, and return None to accept it")
