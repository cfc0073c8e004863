"""Faults of channels: what carries packets, and what must not be lost on the way."""

from __future__ import annotations

from ..fault import fault

STREAM = "channels/test_stream.py"
RESUMPTION = "channels/test_resumption.py"
FORWARDING = "channels/test_forwarding_core.py"

FAULTS = (
    fault(
        "a send that was cut off by a cancellation is followed by another packet",
        "channels/transports.py",
        "        self._cut = True\n        try:\n            with untangled():\n                await self._stream.send_all(frame(bytes(packet)))\n",
        "        try:\n            with untangled():\n                await self._stream.send_all(frame(bytes(packet)))\n",
        STREAM,
    ),
    fault(
        "the rest of a packet that was written in part is forgotten",
        "channels/transports.py",
        "                self._rest = BufferList(whole.cut(sent, len(whole)))\n",
        "                self._rest = None\n",
        STREAM,
    ),
    fault(
        "the end inside a packet passes for an orderly end",
        "channels/stream.py",
        "        elif self._frames.partial:\n",
        "        elif False:\n",
        STREAM,
    ),
    fault(
        "the first listener that has no descriptor ends the server",
        "channels/listeners.py",
        "                if exc.errno not in _EXHAUSTED:\n                    raise\n",
        "                raise\n",
        "channels/test_listeners.py",
    ),
    fault(
        "a Unix socket's file is removed though it is another server's by now",
        "channels/listeners.py",
        "if self._identity is not None and _identity(self._path) == self._identity:",
        "if self._identity is not None:",
        "channels/test_listeners.py",
    ),
    fault(
        "a packet may be skipped over a resumable channel",
        "channels/resumable/replay.py",
        "        if number != self.received + 1:\n",
        "        if number <= self.received:\n",
        RESUMPTION,
    ),
    fault(
        "a packet that comes twice over a resumable channel is delivered twice",
        "channels/resumable/replay.py",
        "        if number != self.received + 1:\n",
        "        if number > self.received + 1:\n",
        RESUMPTION,
    ),
    fault(
        "packets are forgotten before their arrival is known",
        "util/replay_buffer.py",
        "        while self.acknowledged < number:\n",
        "        while self.acknowledged <= number and self._kept:\n",
        RESUMPTION,
    ),
    fault(
        "what was never sent may be acknowledged",
        "channels/resumable/replay.py",
        "        if number > self._sent.last:\n",
        "        if False:\n",
        RESUMPTION,
        hangs=True,
    ),
    fault(
        "a client that reconnects without end counts its attempts without bound",
        "util/reconnect.py",
        "first_delay * 2 ** min(failures, MAX_DOUBLINGS)",
        "first_delay * 2**failures",
        "util/test_reconnect.py",
    ),
    fault(
        "a client that was connected waits as long as before to connect again",
        "util/reconnect.py",
        "        failures = 0 if await connect() else failures + 1\n",
        "        failures += not await connect()\n",
        "util/test_reconnect.py",
    ),
    fault(
        "what is sent again begins with what was acknowledged meanwhile",
        "util/replay_buffer.py",
        "            number = self.acknowledged + index + 1\n",
        "            number += 1\n",
        "util/test_replay_buffer.py",
    ),
    fault(
        "an End is not acknowledged at once",
        "channels/resumable/replay.py",
        "            or (self.has_peer_ended and self.received > self._told)\n",
        "",
        RESUMPTION,
        "faults/test_resumable.py",
    ),
    fault(
        "any number of packets is kept for a peer that acknowledges none",
        "channels/resumable/replay.py",
        "ReplayBuffer(MAX_PACKETS, max_bytes)",
        "ReplayBuffer(10**9, max_bytes)",
        RESUMPTION,
        "faults/test_resumable.py",
    ),
    fault(
        "a forwarded channel sends more than was granted",
        "channels/forwarding/core.py",
        "        size = min(len(packet), limit, room, credit)\n",
        "        size = min(len(packet), limit, room)\n",
        FORWARDING,
    ),
    fault(
        "a forwarded channel's peer may send more than was granted",
        "channels/forwarding/core.py",
        "        if cost > channel.granted or not frame.content:\n",
        "        if not frame.content:\n",
        FORWARDING,
    ),
    fault(
        "any number of forwarded channels may be opened",
        "channels/forwarding/core.py",
        "        if self._accepted == self._limits.max_channels:\n",
        "        if False:\n",
        FORWARDING,
    ),
    fault(
        "one forwarded channel keeps the carrier to itself",
        "channels/forwarding/core.py",
        "            limit = SHARE if self._round else room\n",
        "            limit = room\n",
        FORWARDING,
    ),
    fault(
        "the place of a forwarded channel is free before its last word has left",
        "channels/forwarding/core.py",
        "        if channel.parted and channel.theirs is Half.DONE:\n",
        "        if channel.theirs is Half.DONE:\n",
        FORWARDING,
    ),
    fault(
        "an Open may skip numbers",
        "channels/forwarding/core.py",
        "        if frame.id != self._last_of_theirs + 1:\n",
        "        if frame.id <= self._last_of_theirs:\n",
        FORWARDING,
    ),
    fault(
        "an empty WebSocket frame is taken for a packet",
        "channels/websocket/channel.py",
        "        if not message:\n            self._close_with",
        "        if False:\n            self._close_with",
        "channels/test_websocket.py",
    ),
    fault(
        "a WebSocket may bring bytes without end of which no packet is made",
        "channels/websocket/stream.py",
        "        if self.unread > self._max_unread:\n",
        "        if False:\n",
        "channels/test_websocket.py",
    ),
    fault(
        "a WebSocket frame may follow one that was cut off",
        "channels/websocket/stream.py",
        "        self._cut = True\n",
        "",
        "channels/test_websocket.py",
    ),
    fault(
        "a memory channel loses what was sent before it was closed",
        "channels/memory.py",
        "        self._inbox.packets.clear()\n",
        "        self._outbox.packets.clear()\n",
        "channels/test_memory.py",
        "channels/test_conformance.py",
    ),
)
