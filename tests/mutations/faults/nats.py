"""Faults of sessions over NATS: lost messages, credit, liveness, and input from strangers."""

from __future__ import annotations

from ..fault import fault

CHANNEL = "nats/test_nats_channel.py"
CLIENT = "nats/test_nats_client.py"
NAMES = "nats/test_nats_names.py"
PARSER = "nats/test_nats_parser.py"
SESSIONS = "nats/test_nats_sessions.py"
TOPICS = "nats/test_nats_topics.py"

FAULTS = (
    fault(
        "a topic is published in another thread",
        "nats/client.py",
        "    def _check_open(self) -> None:\n        self._owner.check()\n",
        "    def _check_open(self) -> None:\n",
        TOPICS,
        hangs=True,
    ),
    fault(
        "a gap is not noticed by a data message",
        "nats/core.py",
        "return _GAP if seq > self._received else _NOTHING",
        "return _NOTHING",
        CHANNEL,
    ),
    fault(
        "a copy of a data message is accepted again",
        "nats/core.py",
        "if seq == self._received:",
        "if seq <= self._received:",
        CHANNEL,
    ),
    fault(
        "a peer may exceed its credit",
        "nats/core.py",
        "if arrived - self._consumed > self._receive_window:",
        "if False:",
        CHANNEL,
    ),
    fault(
        "credit is counted without the cost of a message in the broker",
        "nats/core.py",
        "total = self._sent_size + len(rest) + COST",
        "total = self._sent_size + len(rest)",
        CHANNEL,
    ),
    fault(
        "a lost end is not sent again",
        "nats/channel.py",
        "self._publish(self._core.control(c.END if self._guard.is_closed else c.KEEPALIVE))",
        "self._publish(self._core.control(c.KEEPALIVE))",
        CHANNEL,
    ),
    fault(
        "the end that opened a channel looks for its peer too seldom to miss it within 1.5 s",
        "nats/channel.py",
        "return min(self.linger, self.silence) / 4",
        "return min(self.linger, self.silence) / 2",
        CHANNEL,
    ),
    fault(
        "a server publishes to any subject that a stranger names",
        "nats/names.py",
        'return re.fullmatch(rf"{re.escape(prefix)}\\.{_RANDOM}\\.{_RANDOM}", subject) is not None',
        "return bool(prefix and subject)",
        NAMES,
        SESSIONS,
    ),
    fault(
        "a name may have a second line",
        "nats/names.py",
        "_NAME.fullmatch(name) is None",
        "_NAME.match(name) is None",
        NAMES,
    ),
    fault(
        "subscriptions are not made again on a new connection",
        "nats/client.py",
        "if not each.is_draining:",
        "if False:",
        CLIENT,
    ),
    fault(
        "another server is tried with credentials that were refused",
        "nats/link.py",
        "case p.Err(text) if text.lower().startswith(REFUSALS):",
        "case p.Err(text) if not text:",
        CLIENT,
    ),
    fault(
        "a session that resumes goes to any instance",
        "nats/any_url.py",
        "self._instance = channel.instance",
        "pass",
        SESSIONS,
    ),
    fault(
        "a subscriber does not count the messages that its full buffer drops",
        "nats/topics.py",
        "self.lost += 1  # the oldest one",
        "pass",
        TOPICS,
    ),
    fault(
        "a line of the protocol is not bounded",
        "nats/parser.py",
        "if end - at > most:",
        "if False:",
        PARSER,
    ),
)
