"""A channel over NATS: whole packets between two private subjects. See ``core.py`` for the wire.

The life of a channel, as :meth:`NatsChannel.look` checks it:

1. Each message names its sender's subject for answers. If the peer's process is gone, the broker
   itself answers 503. That may be wrong for a moment, while the peer connects again or a cluster
   tells its nodes. So it is believed after ``linger`` seconds in which the peer says nothing.
2. After two fifths of ``silence`` the peer is asked for a keepalive, and after all of it the
   channel breaks. Time in which this end was blocked, or in which its broker was silent, does not
   count.
3. The end that has opened the channel sends something four times within ``linger``, so that it
   learns by 1 that its peer is gone. It knows that within half of ``linger`` more: a call that left
   just before its peer was killed gets no 503, but the next message does. So a quarter, a look,
   ``linger`` and another look pass.
4. After ``outage`` seconds without a broker the channel breaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from trio_rpc.channels.errors import ChannelGuard, closed_error
from trio_rpc.errors import DecodeError
from trio_rpc.nats import core as c
from trio_rpc.nats.broker import Broker
from trio_rpc.nats.parser import Msg
from trio_rpc.util.text import one_line
from trio_rpc.util.time_limits import PacketTimer
from trio_rpc.wire.limits import Limits

__all__ = ["NatsChannel", "Patience"]

ASK_AT: Final = 0.4
"""The part of ``silence`` after which the peer is asked for a keepalive."""

AGAIN_INTERVAL: Final = 0.25
"""Seconds between two messages that ask for the same missing ones, and between two answers."""

NO_RESPONDERS: Final = 503


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds after which a channel breaks; see the module's docstring."""

    linger: float
    silence: float
    outage: float

    @property
    def look_interval(self) -> float:
        """Seconds between two looks at a channel."""
        return min(self.linger, self.silence) / 10

    @property
    def probe_interval(self) -> float:
        """Seconds after which the end that has opened a channel sends something."""
        return min(self.linger, self.silence) / 4


class NatsChannel(trio.abc.Channel[bytes]):
    """One end of a channel over NATS. Two tasks may use it if one sends and one receives.

    Made by :meth:`trio_rpc.nats.Nats.open_channel`, and for the clients of a server.

    Args:
        broker: the connection to NATS.
        limits: ``max_packet`` and ``packet_timeout``.
        window: bytes that are granted to the peer.
        patience: the times after which the channel breaks.
        opened_here: whether this end has opened the channel.
        ended: called once, when no more messages may arrive.

    Attributes:
        subject: the private subject of this end.
        peer: the private subject of the other end; ``""`` until it is known.
        instance: the name of the peer's instance, if this end has opened the channel.
    """

    def __init__(
        self,
        broker: Broker,
        limits: Limits,
        window: int,
        patience: Patience,
        *,
        opened_here: bool,
        ended: Callable[[NatsChannel], object],
    ) -> None:
        self.subject = broker.new_inbox(self._on_message)
        self.peer = ""
        self.instance = ""
        self.window = window
        self._broker = broker
        self._max_packet = limits.max_packet
        self._timer = PacketTimer(limits.packet_timeout)
        self._patience = patience
        self._opened_here = opened_here
        self._ended = ended
        self._core = c.ChannelCore(window)
        self._line = b""
        self._guard = ChannelGuard()
        self._senders = trio.lowlevel.ParkingLot()
        self._receiver: trio.lowlevel.Task | None = None
        """The task that waits in receive()."""
        self._partial: list[bytes] = []
        """The parts of a packet that were taken; bound: ``max_packet``, as _take checks."""
        self._partial_size = 0
        self._is_stopped = False
        self._over: str | None = None
        """The reason why the channel is broken."""
        self._wrong: DecodeError | None = None
        """The peer's error that has broken it."""
        now = trio.current_time()
        self._heard_at = self._sent_at = self._asked_at = now
        self._absent_at: float | None = None
        """The time when the broker said that the peer is gone, unless the peer was heard since."""
        self._missing = -1
        """The first data message that the peer was asked for."""
        self._missing_at = self._repeated_at = -1.0
        self._repeated = -1
        self._heard = 0

    def __repr__(self) -> str:
        state = "closed " if self._guard.is_closed else ""
        return f"<{state}NatsChannel with {self.instance or self.peer}>"

    def begin(self, peer: str, send_window: int) -> None:
        """Begin, since the subject of the peer is known.

        Args:
            peer: its private subject, already checked.
            send_window: bytes that it has granted.
        """
        self.peer = peer
        self._line = f"PUB {peer} {self.subject} ".encode()
        self._core.send_window = min(send_window, c.MOST_WINDOW)
        self._heard_at = trio.current_time()

    # ------------------------------------------------------------------------------ sending

    async def send(self, value: bytes) -> None:
        """Send one packet. Waits while the peer has granted no credit.

        If cancelled before the first part was sent, nothing was sent. Later, the rest is still
        sent as the peer grants credit.

        Args:
            value: the packet; at least one byte.

        Raises:
            ValueError: the packet is empty.
            trio.BrokenResourceError: the peer has closed the channel, or the channel has broken.
            trio.ClosedResourceError: this end is closed, or was closed while waiting.
            trio.BusyResourceError: another task is sending.
        """
        self._guard.begin_sending()
        try:
            self._check_send(value)
            await trio.lowlevel.checkpoint_if_cancelled()
            core, waited = self._core, False
            while core.is_sending():
                await self._senders.park()
                waited = True
                self._check_send(value)
            core.start(value)
            self._pump()
            try:
                while core.is_sending():
                    await self._senders.park()
                    waited = True
                    self._check_send(value)
            except trio.Cancelled:
                if core.is_sending() and not core.has_begun:
                    core.withdraw()
                raise
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._guard.is_sending = False

    def send_nowait(self, value: bytes) -> bool:
        """Send one packet, if its first part can be sent now; return whether it was taken.

        The rest is sent as the peer grants credit.

        Args:
            value: the packet; at least one byte.

        Raises:
            Exception: the same errors as :meth:`send`.
        """
        self._check_send(value)
        core = self._core
        if self._guard.is_sending or core.is_sending():
            return False
        core.start(value)
        self._pump()
        if core.is_sending() and not core.has_begun:
            core.withdraw()
            return False
        return True

    async def flush(self) -> None:
        """Wait until the packet that ``send_nowait`` or a cancelled ``send`` took is sent.

        Raises:
            Exception: the same errors as :meth:`send`.
        """
        self._guard.begin_sending()
        try:
            await trio.lowlevel.checkpoint()
            self._check_send(b"-")
            while self._core.is_sending():
                await self._senders.park()
                self._check_send(b"-")
        finally:
            self._guard.is_sending = False

    @property
    def unsent(self) -> int:
        """Bytes that ``flush`` would wait for."""
        return self._core.unsent

    @property
    def heard(self) -> int:
        """The number of received messages: a sign of life, even inside a packet."""
        return self._heard

    @property
    def taken(self) -> object:
        """A value that changes when the other end takes a part of the sent bytes."""
        return self._core.confirmed, self._core.unsent

    def _check_send(self, packet: bytes) -> None:
        self._guard.check_open()
        if not packet:
            raise ValueError("a packet has at least one byte")
        if self._over is not None:
            raise trio.BrokenResourceError(self._over)
        if self._core.peer_ended:
            raise trio.BrokenResourceError("the other end has closed the channel")

    def _pump(self) -> None:
        """Send as many bytes as the credit and the broker's connection allow."""
        core, broker = self._core, self._broker
        most = c.part_size(core.send_window, broker.max_payload)
        while core.is_sending() and broker.has_room:
            message = core.next_message(most)
            if message is None:
                return
            self._publish(message)
        if not core.is_sending():
            self._senders.unpark_all()

    def pump(self) -> None:
        """Go on sending, since the broker's connection has room again."""
        if not self._guard.is_closed and self._over is None:
            self._pump()

    def _publish(self, message: bytes) -> None:
        self._sent_at = trio.current_time()
        self._broker.publish_raw(self._line, message)

    # ---------------------------------------------------------------------------- receiving

    async def receive(self) -> bytes:
        """Return the next packet. If cancelled, no packet is lost.

        Raises:
            trio.EndOfChannel: the other end has closed the channel, and every packet it sent has
                been received.
            trio.BrokenResourceError: the channel has broken, or a packet took too long.
            trio.ClosedResourceError: this end is closed, or was closed while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: the other end has broken the rules, or sent a packet of more than
                ``limits.max_packet`` bytes.
        """
        self._guard.begin_receiving()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while (packet := self._take()) is None:
                await self._wait_for_part()
                waited = True
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return packet
        finally:
            self._guard.is_receiving = False

    def receive_nowait(self) -> bytes:
        """Return the next packet if all of it has arrived, or raise ``trio.WouldBlock``.

        Raises:
            trio.WouldBlock: no whole packet has arrived.
            Exception: the same errors as :meth:`receive`.
        """
        if self._guard.is_receiving:
            raise trio.WouldBlock
        packet = self._take()
        if packet is None:
            raise trio.WouldBlock
        return packet

    def stop_receiving(self) -> None:
        """Make a waiting ``receive`` raise ``trio.ClosedResourceError``."""
        self._is_stopped = True
        self._wake_receiver()

    async def _wait_for_part(self) -> None:
        if not self._partial:
            await self._park()
            return
        try:
            await self._timer.wait(self._park)
        except trio.BrokenResourceError as exc:
            self._break(str(exc), tell=True)
            raise

    async def _park(self) -> None:
        self._receiver = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._unpark)

    def _unpark(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake_receiver(self) -> None:
        if self._receiver is not None:
            task, self._receiver = self._receiver, None
            trio.lowlevel.reschedule(task)

    def _take(self) -> bytes | None:
        """Join the parts of a packet. Return it if it is complete, or raise the channel's end."""
        self._guard.check_open()
        core = self._core
        packet = None
        while core.parts:
            is_last, rest = core.take()
            self._partial_size += len(rest)
            if self._partial_size > self._max_packet:
                self._refuse(DecodeError(f"a packet of more than {self._max_packet} bytes"))
                break
            self._partial.append(rest)
            if is_last:
                packet = rest if len(self._partial) == 1 else b"".join(self._partial)
                self._partial, self._partial_size = [], 0
                self._timer.renew()
                break
        if core.owes_credit and self._over is None:
            self._publish(core.control(c.CREDIT))
        if packet is None:
            self._check_receive()
        return packet

    def _check_receive(self) -> None:
        if self._wrong is not None:
            raise DecodeError(str(self._wrong))
        if self._over is not None:
            raise trio.BrokenResourceError(self._over)
        if self._core.peer_ended:
            if self._partial:
                raise trio.BrokenResourceError("the other end closed the channel inside a packet")
            raise trio.EndOfChannel
        if self._is_stopped:
            raise closed_error()

    # ------------------------------------------------------------------------------- ending

    async def aclose(self) -> None:
        """Close this end without waiting. The other end still gets sent packets, then the end."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close this end without a checkpoint; see :meth:`aclose`."""
        if self._guard.is_closed:
            return
        self._guard.is_closed = True
        if self.peer and self._over is None:
            if self._core.has_begun:
                self._publish(self._core.control(c.RESET, b"closed inside a packet"))
            else:
                self._publish(self._core.control(c.END))
        self._wake()
        if self._over is not None or not self.peer or self._is_settled:
            self._ended(self)

    @property
    def is_closed(self) -> bool:
        """Whether this end was closed."""
        return self._guard.is_closed

    @property
    def _is_settled(self) -> bool:
        """Whether the peer needs nothing more of this closed end."""
        return self._core.all_consumed and self._core.peer_ended

    def abort(self, reason: str) -> None:
        """Break the channel at both ends.

        Args:
            reason: the text of the error at the other end.
        """
        if not self._guard.is_closed:
            self._guard.is_closed = True
            self._break(reason, tell=True)

    def _break(self, reason: str, *, tell: bool = False) -> None:
        """Break the channel; ``tell`` says whether the peer can be told."""
        if self._over is not None:
            return
        self._over = reason
        if tell and self.peer:
            self._publish(self._core.control(c.RESET, reason.encode()[:500]))
        self._wake()
        self._ended(self)

    def fail(self, reason: str) -> None:
        """Break the channel, since there will be no broker any more.

        Args:
            reason: the text of the error.
        """
        self._break(reason)

    def _refuse(self, exc: DecodeError) -> None:
        """Break the channel, since the peer has broken a rule."""
        self._wrong = self._wrong or exc
        self._break(str(exc), tell=True)

    def _wake(self) -> None:
        self._senders.unpark_all()
        self._wake_receiver()

    # ------------------------------------------------------------------ events from the hub

    def _on_message(self, message: Msg) -> None:
        """Handle a message for the private subject of this end."""
        if self._over is not None:
            return
        if message.headers:
            if message.status == NO_RESPONDERS and self._absent_at is None:
                self._absent_at = trio.current_time()
                self._ask()
            return
        try:
            arrival = self._core.receive(message.data)
            self._heard += 1
            self._heard_at = trio.current_time()
            self._absent_at = None
            self._act(arrival)
        except DecodeError as exc:
            self._refuse(exc)

    def _act(self, arrival: c.Arrival) -> None:
        core = self._core
        if arrival.has_data or core.peer_ended:
            self._wake_receiver()
        if arrival.reset is not None:
            self._break(f"the other end has given up the channel: {one_line(arrival.reset)}")
            return
        if arrival.has_gap:
            self._ask_again()
        if arrival.again is not None:
            self._send_again(arrival.again)
        if arrival.wants_answer:
            self._keep_alive()
        if core.is_sending():
            self._pump()
        if core.peer_ended:
            self._senders.unpark_all()
        if self._guard.is_closed and self._is_settled:
            self._ended(self)

    def _ask_again(self) -> None:
        """Ask for the missing data messages, unless they were asked for just now."""
        now, missing = trio.current_time(), self._core.received
        if missing != self._missing or now - self._missing_at >= AGAIN_INTERVAL:
            self._missing, self._missing_at = missing, now
            self._publish(self._core.ask_again())

    def _send_again(self, first: int) -> None:
        """Send data messages again, and the end; not again and again for the same ones."""
        now = trio.current_time()
        if first == self._repeated and now - self._repeated_at < AGAIN_INTERVAL / 2:
            return  # a peer could otherwise make us send a window for each small message
        self._repeated, self._repeated_at = first, now
        for message in self._core.again(first):
            self._publish(message)
        if self._guard.is_closed:
            self._publish(self._core.control(c.END))

    def _keep_alive(self) -> None:
        """Tell the peer that this end is alive, or repeat that it was closed."""
        self._publish(self._core.control(c.END if self._guard.is_closed else c.KEEPALIVE))

    def _ask(self) -> None:
        self._asked_at = trio.current_time()
        self._publish(self._core.control(c.KEEPALIVE, c.WANTS_ONE_BACK))

    def came_up(self) -> None:
        """Ask the peer for its numbers, since messages may be lost with the old connection."""
        if self.peer and self._over is None:
            self._heard_at = trio.current_time()
            self._absent_at = None
            self._ask()
            if self._guard.is_closed:
                self._publish(self._core.control(c.END))
            self._pump()

    def was_blocked(self, seconds: float) -> None:
        """Do not count time in which this program was blocked.

        Args:
            seconds: the time.
        """
        self._heard_at += seconds
        if self._absent_at is not None:
            self._absent_at += seconds

    def look(self, now: float) -> None:
        """Act on each time that is over; see the module's docstring.

        Args:
            now: Trio's time in seconds.
        """
        broker, patience = self._broker, self._patience
        if not self.peer or self._over is not None:
            return
        if not broker.is_up:
            if now - broker.changed_at >= patience.outage:
                self._break(f"there was no NATS server for {patience.outage:g} s")
            return
        if self._absent_at is not None:
            since = max(self._absent_at, broker.changed_at)
            if now - since >= patience.linger:
                self._break("the process of the other end is gone, as the NATS server says")
            elif now - self._asked_at >= patience.probe_interval:
                self._ask()
            return
        if self._missing == self._core.received:  # the question, or its answer, was lost as well
            self._ask_again()
        silent = broker.heard_at - self._heard_at
        if silent >= patience.silence:
            self._break(f"the other end was silent for {silent:.1f} s", tell=True)
        elif silent >= patience.silence * ASK_AT:
            if now - self._asked_at >= patience.probe_interval:
                self._ask()
        elif self._opened_here and now - self._sent_at >= patience.probe_interval:
            self._keep_alive()
