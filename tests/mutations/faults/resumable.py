"""Faults of resumable channels: who may send when, and what becomes of a connection that is lost."""

from __future__ import annotations

from ..fault import fault

CHANNEL = "channels/resumable/channel.py"
CLIENT = "channels/resumable/client.py"
SERVER = "channels/resumable/server.py"
RACES = "faults/test_resumable_races.py"
TURNS = "faults/test_resumable_turns.py"

FAULTS = (
    fault(
        "a packet is sent again while another is being sent",
        CHANNEL,
        "            async with self._sending:\n                if first is not None:\n",
        "            if carrier is not None:\n                if first is not None:\n",
        TURNS,
    ),
    fault(
        "a packet leaves at once though somebody has the turn to send",
        CHANNEL,
        "            or self._sending.locked()\n",
        "",
        TURNS,
    ),
    fault(
        "a packet leaves at once before one that waits for room",
        CHANNEL,
        "            or self._guard.sending.is_held\n            or self._sending.locked()\n",
        "            or self._sending.locked()\n",
        TURNS,
    ),
    fault(
        "an Ack that could not leave counts as told",
        CHANNEL,
        "if self._outlet is not None and self._resumption.is_ack_due:",
        "if self._resumption.is_ack_due:",
        TURNS,
    ),
    fault(
        "an Ack is sent in the middle of another packet",
        CHANNEL,
        "            async with self._sending:\n                # Without an outlet",
        "            if True:\n                # Without an outlet",
        TURNS,
    ),
    fault(
        "a connection that fails as a packet leaves at once is kept",
        CHANNEL,
        "        except CHANNEL_ERRORS:\n            self._lose(outlet.carrier)\n        self._resumption.keep(value)\n",
        "        except CHANNEL_ERRORS:\n            pass\n        self._resumption.keep(value)\n",
        TURNS,
    ),
    fault(
        "a packet is lost if the connection fails as it leaves at once",
        CHANNEL,
        "        except CHANNEL_ERRORS:\n            self._lose(outlet.carrier)\n        self._resumption.keep(value)\n",
        "        except CHANNEL_ERRORS:\n            self._lose(outlet.carrier)\n            return True\n"
        "        self._resumption.keep(value)\n",
        TURNS,
    ),
    fault(
        "a connection that fails in flush is kept",
        CHANNEL,
        "                await outlet.now.flush()\n            except CHANNEL_ERRORS:\n                self._lose(outlet.carrier)\n",
        "                await outlet.now.flush()\n            except CHANNEL_ERRORS:\n                pass\n",
        TURNS,
    ),
    fault(
        "a connection that fails in send is kept",
        CHANNEL,
        "            await outlet.carrier.send(frame)\n        except CHANNEL_ERRORS:\n            self._lose(outlet.carrier)\n",
        "            await outlet.carrier.send(frame)\n        except CHANNEL_ERRORS:\n            pass\n",
        TURNS,
    ),
    fault(
        "a connection that fails while it catches up is kept",
        CHANNEL,
        "        except CHANNEL_ERRORS:\n            self._lose(carrier)\n\n    def fail(",
        "        except CHANNEL_ERRORS:\n            pass\n\n    def fail(",
        TURNS,
    ),
    fault(
        "a connection in which a send was cancelled is kept",
        CHANNEL,
        "            self._lose(outlet.carrier)\n            raise\n",
        "            raise\n",
        TURNS,
    ),
    fault(
        "an older connection is not released when a newer one comes",
        CHANNEL,
        "        self._lose(self._carrier)\n        try:\n            frames = ",
        "        try:\n            frames = ",
        TURNS,
    ),
    fault(
        "a connection that was replaced while it caught up is sent over",
        CHANNEL,
        "                if carrier is self._carrier:\n                    self._outlet = ",
        "                if carrier is not None:\n                    self._outlet = ",
        TURNS,
    ),
    fault(
        "a connection whose owner is cancelled is kept",
        CHANNEL,
        "        finally:\n            self._lose(carrier)\n\n    async def _catch_up(",
        "        finally:\n            pass\n\n    async def _catch_up(",
        TURNS,
    ),
    fault(
        "a packet of a connection that was replaced is taken",
        CHANNEL,
        "        if carrier is not self._carrier:\n            return None  # the other end sends it again over the next carrier\n",
        "",
        RACES,
    ),
    fault(
        "garbage of a connection that was replaced ends the session",
        CHANNEL,
        "            if carrier is not self._carrier:\n                return None\n            raise\n",
        "            raise\n",
        TURNS,
    ),
    fault(
        "a client may resume by what it had received before it resumed once more",
        SERVER,
        "        if frame.ack < known.confirmed:\n",
        "        if False:\n",
        RACES,
    ),
    fault(
        "a sender that waited for its turn is not told that the session was lost",
        CHANNEL,
        "            async with self._turn():\n                self._check_send(value)\n",
        "            async with self._turn():\n",
        TURNS,
    ),
    fault(
        "the outlet of a connection that is lost is kept",
        CHANNEL,
        "            self._carrier = self._outlet = None\n",
        "            self._carrier = None\n",
        TURNS,
    ),
    fault(
        "each try to connect gives a session the whole grace again",
        CHANNEL,
        "                with trio.move_on_after(grace) as waiting:\n"
        "                    while self._carrier is None and not self.is_over:\n"
        "                        await self._changed.wait()\n",
        "                while self._carrier is None and not self.is_over:\n"
        "                    with trio.move_on_after(self._options.grace) as scope:\n"
        "                        await self._changed.wait()\n"
        "                    if scope.cancelled_caught:\n"
        "                        break\n",
        RACES,
    ),
    fault(
        "a silent client of a server that resumes is waited for without end",
        SERVER,
        'with time_limit(self._timeout, "no packet from the client"):',
        'with time_limit(float("inf"), "no packet from the client"):',
        RACES,
    ),
    fault(
        "a silent server of a client that resumes is waited for without end",
        CLIENT,
        'with time_limit(self._timeout, "no answer from a server that resumes sessions"):',
        'with time_limit(float("inf"), "no answer from a server that resumes sessions"):',
        TURNS,
    ),
)
