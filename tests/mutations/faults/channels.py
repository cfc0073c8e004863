"""Faults of channels: lost, duplicated, reordered or unlimited packets."""

from __future__ import annotations

from ..fault import fault

STREAM = "channels/test_stream.py"
RESUMPTION = "channels/test_resumption.py"
FORWARDING = "channels/test_forwarding_core.py"

FAULTS = (
    fault(
        "another packet follows a send that a cancellation interrupted",
        "channels/transports.py",
        "        self._cut = True\n        try:\n            with untangled():\n                await self._stream.send_all(frame(bytes(packet)))\n",
        "        try:\n            with untangled():\n                await self._stream.send_all(frame(bytes(packet)))\n",
        STREAM,
    ),
    fault(
        "the rest of a partly written packet is dropped",
        "channels/transports.py",
        "                self._rest = BufferList(whole.cut(sent, len(whole)))\n",
        "                self._rest = None\n",
        STREAM,
    ),
    fault(
        "an end of the stream inside a packet counts as an orderly end",
        "channels/stream.py",
        "        elif self._frames.partial:\n",
        "        elif False:\n",
        STREAM,
    ),
    fault(
        "a server ends when no file descriptor is left for a connection",
        "channels/listeners.py",
        "                if exc.errno not in _EXHAUSTED:\n                    raise\n",
        "                raise\n",
        "channels/test_listeners.py",
    ),
    fault(
        "a Unix socket's file is removed although another server has replaced it",
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
        "a packet that arrives twice over a resumable channel is delivered twice",
        "channels/resumable/replay.py",
        "        if number != self.received + 1:\n",
        "        if number > self.received + 1:\n",
        RESUMPTION,
    ),
    fault(
        "packets are dropped from the replay buffer before they are acknowledged",
        "util/replay_buffer.py",
        "        while self.acknowledged < number:\n",
        "        while self.acknowledged <= number and self._kept:\n",
        RESUMPTION,
    ),
    fault(
        "a peer may acknowledge packets that were never sent",
        "channels/resumable/replay.py",
        "        if number > self._sent.last:\n",
        "        if False:\n",
        RESUMPTION,
        hangs=True,
    ),
    fault(
        "a client that reconnects forever overflows its count of attempts",
        "util/reconnect.py",
        "first_delay * 2 ** min(failures, MAX_DOUBLINGS)",
        "first_delay * 2**failures",
        "util/test_reconnect.py",
    ),
    fault(
        "the delay between attempts does not start over after a connection",
        "util/reconnect.py",
        "        failures = 0 if await connect() else failures + 1\n",
        "        failures += not await connect()\n",
        "util/test_reconnect.py",
    ),
    fault(
        "a replay includes packets that were acknowledged meanwhile",
        "util/replay_buffer.py",
        "            number = self.acknowledged + index + 1\n",
        "            number += 1\n",
        "util/test_replay_buffer.py",
    ),
    fault(
        "an End is not acknowledged at once",
        "channels/resumable/replay.py",
        "            or (self.has_peer_ended and self.received > self._acknowledged)\n",
        "",
        RESUMPTION,
        "faults/test_resumable.py",
    ),
    fault(
        "the replay buffer has no limit",
        "channels/resumable/replay.py",
        "ReplayBuffer(MAX_PACKETS, max_bytes)",
        "ReplayBuffer(10**9, max_bytes)",
        RESUMPTION,
        "faults/test_resumable.py",
    ),
    fault(
        "a forwarded channel sends more than its credit",
        "channels/forwarding/core.py",
        "        size = min(len(packet), limit, room, credit)\n",
        "        size = min(len(packet), limit, room)\n",
        FORWARDING,
    ),
    fault(
        "a forwarded channel's peer may send more than its credit",
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
        "one forwarded channel blocks all others of its carrier",
        "channels/forwarding/core.py",
        "            limit = SHARE if self._round else room\n",
        "            limit = room\n",
        FORWARDING,
    ),
    fault(
        "a forwarded channel's slot is free before its last frame is sent",
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
        "a WebSocket peer may send any number of bytes that are not part of a packet",
        "channels/websocket/stream.py",
        "        if self.unread > self._max_unread:\n",
        "        if False:\n",
        "channels/test_websocket.py",
    ),
    fault(
        "a WebSocket frame may follow an interrupted one",
        "channels/websocket/stream.py",
        "        self._cut = True\n",
        "",
        "channels/test_websocket.py",
    ),
    fault(
        "a memory channel loses packets that were sent before it was closed",
        "channels/memory.py",
        "        self._inbox.packets.clear()\n",
        "        self._outbox.packets.clear()\n",
        "channels/test_memory.py",
        "channels/test_conformance.py",
    ),
)
