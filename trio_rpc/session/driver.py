"""Runs a session: its tasks, the handshake, the watch over silence, and the orderly end.

Who owns which task
===================

The block that opened the session owns one nursery. It runs the block's body, the handlers, the
reader, :func:`run`, and the writer, once a packet could not be written at once. ``run``, the reader
and the writer are shielded. When the block is cancelled, the calls in its body still have to send
their Cancels and wait for the confirmation (law 2), and cancelled handlers still owe their terminal
messages (law 4). These tasks end when the session does, within ``Limits.shutdown_timeout``. The
block ensures that in its ``finally``, so the shield never delays the block for longer.

A server's session has no body, and its task runs ``run`` unshielded, so that cancelling the task
ends the session. When a body has finished, ``run`` is unshielded as well: the block only waits for
it, so a cancellation ends the session at once.

Only the writer waits to write, and only the reader acts on messages, though a caller may receive
its own Reply (``receiver.py``). Neither can be cancelled from outside.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, ClassVar

import trio

from trio_rpc.channels.errors import CHANNEL_ERRORS, detail_of
from trio_rpc.channels.optional import lingers, nowait_close, renews
from trio_rpc.errors import LocalProtocolError, Refused
from trio_rpc.protocol.states import Half
from trio_rpc.session.calls.context import handled_call, outgoing_metadata
from trio_rpc.session.calls.eager import is_awaitable
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.core import Core
from trio_rpc.session.draining import DRAINING
from trio_rpc.session.lifecycle import Stage, as_cause
from trio_rpc.session.reader import Reader, two_turns
from trio_rpc.session.session import Session
from trio_rpc.util.contexts import copy_of, own_decimal_context
from trio_rpc.util.progress import wait_while_progressing
from trio_rpc.util.text import one_line
from trio_rpc.util.time_limits import LISTENING, PUNCTUAL, was_blocked
from trio_rpc.wire import messages as m

__all__ = ["run", "start"]

_REFUSALS = ("refused", "overloaded", "protocol_error")
"""The codes of a Goodbye in place of Welcome that refuse the session."""


def start(core: Core, nursery: trio.Nursery) -> None:
    """Begin a session; a task in ``nursery`` runs it until it is over and its channel is closed.

    Args:
        core: a fresh session.
        nursery: the nursery of its handlers, its reader, its writer and its driver.

    Raises EncodeError if the credentials are too large. The caller then stops the session.
    """
    driver = _Driver(core, nursery, shield=True)

    def start_tasks() -> None:
        _forget_caller()
        nursery.start_soon(driver.run, name="trio_rpc driver")
        driver.begin()

    copy_context().run(start_tasks)
    core.writer.write_now()


async def run(core: Core, nursery: trio.Nursery) -> None:
    """Run a session in this task, whose cancellation ends it; arguments as for :func:`start`."""
    _forget_caller()
    driver = _Driver(core, nursery, shield=False)
    try:
        driver.begin(looks_first=True)
    except BaseException:
        core.lifecycle.stop()
        raise
    finally:
        await driver.run()


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
    def __init__(self, core: Core, nursery: trio.Nursery, *, shield: bool) -> None:
        self._core = core
        self._protocol = core.protocol
        self._channel = core.channel
        self._closes_now = nowait_close(core.channel)
        self._nursery = nursery
        self._shield = shield
        self._next_look = 0.0
        """The time of the next check for a missing handshake or a silent peer."""
        self._writing: trio.CancelScope
        self._draining: trio.CancelScope | None = None
        self._authenticating: trio.CancelScope | None = None
        self._silence: _Silence | None = None
        self._reader = Reader(core, nursery, self)
        core.reader = core.services.reader = self._reader
        core.services.nursery = core.incoming.nursery = nursery

    def begin(self, *, looks_first: bool = False) -> None:
        """Queue Hello, and start the reader in a copy of this context."""
        self._core.incoming.context = copy_of(copy_context())
        self._core.writer.start(self)
        self._protocol.hello(
            self._core.options.credentials,
            self._core.session_id,
            self._core.lifecycle.retry_after,
        )
        self._reader.looks_first = looks_first
        self._reader.start()

    async def run(self) -> None:
        """Run the session until it is over and its channel is closed."""
        try:
            await self._watch()
        finally:
            self._core.lifecycle.stop()
            self._reader.stop()
            # A server's nursery is not cancelled when its session ends; it would wait for the task.
            if self._authenticating is not None:
                self._authenticating.cancel(reason="the session is over")
            try:
                await self._finish()
            finally:
                if self._core.writer.stop():
                    self._writing.cancel(reason="the session is over")
                self._reader.let_go()
                self._core.lifecycle.channel_closed()
                self._core.let_go()

    # ── the tasks ────────────────────────────────────────────────────────────────────────────

    def start_writer(self) -> None:
        """Start the task that writes."""
        self._writing = trio.CancelScope(shield=True)
        # Any task may be the first to need it, and it must not inherit that task's context.
        start = functools.partial(self._nursery.start_soon, self._write, name="trio_rpc writer")
        self._core.incoming.context.copy().run(start)

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

    async def _watch(self) -> None:
        """Wait for the end. Bound the handshake, then silence, and the time of cancelled calls.

        1. Sleep until the session ends, or the earliest of these: the next check for a sign of
           life, the time to abandon a cancelled call, the time to refuse a call that waits for its
           service, and the time to stop a closing session.
        2. Abandon and refuse calls, and stop the session, if it is time for that.
        3. If it is time for the next check, but this program was blocked until now, wait as long
           again: meanwhile it could not have noticed a sign of life.
        4. A session that is still opening has had its time for the handshake, and is lost.
        5. Otherwise let the reader handle packets that have arrived. Then check for silence.
        """
        core, lifecycle = self._core, self._core.lifecycle
        self._next_look = trio.current_time() + core.limits.handshake_timeout
        while not lifecycle.is_over:
            first = min(core.outgoing.first_to_expire, core.incoming.absent.first_to_expire)
            first = min(first, self._next_look, self._next_look_for_answers)
            await lifecycle.watch(first, shield=self._shield)  # (1)
            now = trio.current_time()
            core.outgoing.abandon_late(now)  # (2)
            if core.incoming.refuse_late(now):
                core.writer.write_now()
            lifecycle.stop_if_late(now)
            if not lifecycle.is_over and core.answers and now >= core.answers.next_look:
                await two_turns()
                core.answers.look()
            if lifecycle.is_over or now < self._next_look:
                continue
            is_opening = lifecycle.stage is Stage.OPENING
            patience = (
                core.limits.handshake_timeout if is_opening else core.limits.keepalive_interval
            )
            is_late = was_blocked(self._next_look, patience)  # (3)
            self._next_look = now + patience
            if is_late:
                if self._silence is not None:
                    self._silence.listened = 0
                continue
            if is_opening:  # (4)
                text = f"no handshake within {core.limits.handshake_timeout:g} s"
                lifecycle.end_unopened(TimeoutError(text), "network")
                return
            await two_turns()  # (5)
            if not lifecycle.is_over:
                self._silence = self._silence or _Silence(core)
                self._next_look = now + self._silence.look()

    @property
    def _next_look_for_answers(self) -> float:
        answers = self._core.answers
        return math.inf if answers is None else answers.next_look

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
            lingering = None if core.lifecycle.stage is Stage.FINISHED else lingers(self._channel)
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
        if not self._closes_now or not self._closes_now.close_nowait():  # (4)
            with trio.move_on_after(core.limits.shutdown_timeout, shield=True):
                await self._channel.aclose()

    # ── actions ──────────────────────────────────────────────────────────────────────────────

    def act(self, event: Any) -> IncomingCall | None:
        """Act on a message; return a call if its handler has to wait."""
        return self._ACTIONS[type(event)](self, event)

    _ACTIONS: ClassVar[Mapping[type[m.Message], Callable[[_Driver, Any], IncomingCall | None]]] = {
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
        m.Item: lambda self, event: self._core.outgoing.item(event),
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
        own_decimal_context()  # the other variables are this task's own already
        try:
            with self._authenticating:
                result: Any = authenticate(session, self._protocol.peer.credentials)
                _check_answer(await result if is_awaitable(result) else result)
        except Refused as exc:
            # A refusal is not a bug, so its traceback is not needed. It refers to the session.
            core.lifecycle.lose(exc.with_traceback(None))
        else:
            if core.lifecycle.stage is Stage.OPENING:
                self._accept_peer()
                core.writer.write_now()

    def _accept_peer(self) -> None:
        # A function that makes services runs in its own context, as handlers do.
        incoming = self._core.incoming
        services = self._core.services
        if copy_of(incoming.context).run(services.begin, incoming.session):
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
            self._next_look = trio.current_time() + core.limits.keepalive_interval
            if core.answers is not None:
                core.answers.begin()
            core.lifecycle.look_by(min(self._next_look, self._next_look_for_answers))
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


class _Writing(enum.Enum):
    FREE = "no packet has waited for the channel since the last check"
    SLOW = "a packet has waited, and the other end has read a part of the written data"
    STUCK = "a packet has waited, and the other end has read nothing"


class _Silence:
    """Detects a silent peer: sends Pings, and ends the session if too many stay unanswered.

    A Ping cannot overtake the packet that waits for the channel. So while the peer takes parts of
    that packet, it is slow, and neither silent nor stalled.

    This program may have been blocked for most of an interval and wake up in time all the same. The
    answer is then still in a socket, or in a task below the channel. So a peer is lost only if this
    program was awake and heard nothing in the last tenth of the last interval.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._heard: object = None
        self._unanswered = 0
        self.listened = 0
        """How often this program has looked again; reset if it was blocked."""
        self._sent = 0
        self._taken: object = None
        self._stuck = 0

    def look(self) -> float:
        """Check whether a byte has arrived since the last check; return the time until the next."""
        core, limits = self._core, self._core.limits
        # A part of a large packet is also a sign of life.
        heard = core.protocol.counters.packets_received, getattr(core.channel, "heard", None)
        is_overdue = heard == self._heard and self._unanswered >= limits.keepalive_pings
        if is_overdue and self.listened < LISTENING:
            self.listened += 1
            return limits.keepalive_interval * PUNCTUAL / LISTENING
        self.listened = 0
        writing = self._look_at_writing()
        if heard != self._heard:
            self._heard, self._unanswered = heard, 0
            self._ask_about_calls()
            if self._stuck > limits.keepalive_pings:
                self._lose("has taken nothing for {:g} s, though it is not silent", self._stuck)
        elif writing is _Writing.SLOW:
            self._unanswered = 0
        elif self._unanswered < limits.keepalive_pings:
            self._unanswered += 1
            core.protocol.ping()
            core.writer.write_now()  # before this program can be blocked
            if self._unanswered == limits.keepalive_pings:
                return limits.keepalive_interval * (1 - PUNCTUAL)
        elif (channel := renews(core.channel)) is not None and channel.renew():
            self._unanswered = 0
        else:
            self._lose("was silent for {:g} s", self._unanswered + 1)
        return limits.keepalive_interval

    def _ask_about_calls(self) -> None:
        """Send a Ping if a call has waited for long and is not known to have been read.

        Its Pong shows that to :meth:`Session.tree`. Calls that end sooner cost nothing.
        """
        core = self._core
        before = trio.current_time() - core.limits.keepalive_interval
        outgoing = core.outgoing
        if any(
            call.started <= before and not outgoing.is_running(call)
            for call in outgoing.calls.values()
        ):
            core.protocol.ping()
            core.writer.write_now()

    def _look_at_writing(self) -> _Writing:
        """Check whether the peer takes the bytes written to it."""
        core = self._core
        sent, taken = core.protocol.counters.packets_sent, getattr(core.channel, "taken", None)
        if not core.writer.is_writing or sent != self._sent:
            writing = _Writing.FREE
        else:
            writing = _Writing.STUCK if taken == self._taken else _Writing.SLOW
        self._sent, self._taken = sent, taken
        self._stuck = self._stuck + 1 if writing is _Writing.STUCK else 0
        return writing

    def _lose(self, reason: str, intervals: int) -> None:
        text = "the other end " + reason.format(intervals * self._core.limits.keepalive_interval)
        self._core.lifecycle.lose(TimeoutError(text), "network")
