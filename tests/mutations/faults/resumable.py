"""Faults of resumable channels: the order of sends, and connections that fail."""

from __future__ import annotations

from ..fault import fault

CHANNEL = "channels/resumable/channel.py"
CLIENT = "channels/resumable/client.py"
SERVER = "channels/resumable/server.py"
RACES = "faults/test_resumable_races.py"
TURNS = "faults/test_resumable_turns.py"

FAULTS = (
    fault(
        "a packet is replayed while another one is being sent",
        CHANNEL,
        "            async with self._sending:\n                if first is not None:\n",
        "            if carrier is not None:\n                if first is not None:\n",
        TURNS,
    ),
    fault(
        "send_nowait sends although another task has the turn to send",
        CHANNEL,
        "            or self._sending.locked()\n",
        "",
        TURNS,
    ),
    fault(
        "send_nowait overtakes a packet that waits for room",
        CHANNEL,
        "            or self._guard.is_sending\n            or self._sending.locked()\n",
        "            or self._sending.locked()\n",
        TURNS,
    ),
    fault(
        "an Ack that could not be sent counts as sent",
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
        "a connection that fails in send_nowait is kept",
        CHANNEL,
        "        except CHANNEL_ERRORS:\n            self._stop_sending(outlet.carrier)\n        self._resumption.keep(value)\n",
        "        except CHANNEL_ERRORS:\n            pass\n        self._resumption.keep(value)\n",
        TURNS,
    ),
    fault(
        "a packet is lost if the connection fails in send_nowait",
        CHANNEL,
        "        except CHANNEL_ERRORS:\n            self._stop_sending(outlet.carrier)\n        self._resumption.keep(value)\n",
        "        except CHANNEL_ERRORS:\n            self._stop_sending(outlet.carrier)\n            return True\n"
        "        self._resumption.keep(value)\n",
        TURNS,
    ),
    fault(
        "a connection that fails in flush is kept",
        CHANNEL,
        "                await outlet.now.flush()\n            except CHANNEL_ERRORS:\n                self._stop_sending(outlet.carrier)\n",
        "                await outlet.now.flush()\n            except CHANNEL_ERRORS:\n                pass\n",
        TURNS,
    ),
    fault(
        "a connection that fails in send is kept",
        CHANNEL,
        "            await outlet.carrier.send(frame)\n        except CHANNEL_ERRORS:\n            self._stop_sending(outlet.carrier)\n",
        "            await outlet.carrier.send(frame)\n        except CHANNEL_ERRORS:\n            pass\n",
        TURNS,
    ),
    fault(
        "a connection that fails during its replay is kept",
        CHANNEL,
        "        except CHANNEL_ERRORS:\n            self._stop_sending(carrier)\n\n    def fail(",
        "        except CHANNEL_ERRORS:\n            pass\n\n    def fail(",
        TURNS,
    ),
    fault(
        "an End that has arrived is dropped because a send fails",
        CHANNEL,
        "            self._outlet = None\n            self._lost.set()\n",
        "            self._carrier = self._outlet = None\n            self._lost.set()\n",
        TURNS,
    ),
    fault(
        "a connection over which nothing can be sent is kept",
        CHANNEL,
        "            with trio.move_on_after(LAST_FRAMES_TIMEOUT):\n",
        "            if True:\n",
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
        "an older connection is not released when a newer one arrives",
        CHANNEL,
        "        self._drop(self._carrier)\n        self._resumption",
        "        self._resumption",
        TURNS,
    ),
    fault(
        "a connection replaced during its replay is still used",
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
        "a packet from a replaced connection is accepted",
        CHANNEL,
        "        if carrier is not self._carrier:\n            return None  # the other end sends it again over the next carrier\n",
        "",
        RACES,
    ),
    fault(
        "an invalid packet from a replaced connection ends the session",
        CHANNEL,
        "            if carrier is not self._carrier:\n                return None\n            raise\n",
        "            raise\n",
        TURNS,
    ),
    fault(
        "an outdated request to resume is accepted",
        SERVER,
        "        if frame.ack < known.confirmed:\n",
        "        if False:\n",
        RACES,
    ),
    fault(
        "a sender that waits for its turn does not learn that the session was lost",
        CHANNEL,
        "            async with self._turn():\n                self._check_send(value)\n",
        "            async with self._turn():\n",
        TURNS,
    ),
    fault(
        "the outlet of a lost connection is kept",
        CHANNEL,
        "            self._outlet = None\n            self._lost.set()\n",
        "            self._lost.set()\n",
        TURNS,
    ),
    fault(
        "each attempt to connect restarts the grace time",
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
        "a server waits for a silent resuming client without a limit",
        SERVER,
        'with time_limit(self._timeout, "no packet from the client", scope):',
        'with time_limit(float("inf"), "no packet from the client", scope):',
        RACES,
    ),
    fault(
        "a resuming client waits for a silent server without a limit",
        CLIENT,
        'with time_limit(self._timeout, "no answer from a server that resumes sessions"):',
        'with time_limit(float("inf"), "no answer from a server that resumes sessions"):',
        TURNS,
    ),
)
