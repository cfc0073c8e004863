"""Names and subjects, which are checked before anything is sent.

A subject is a line of text on the wire. A name with CR LF would be a second line, and one with
``*`` or ``>`` would reach other subjects than its own.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

__all__ = [
    "at_subject",
    "check_name",
    "check_subject",
    "is_private",
    "new_token",
    "open_subject",
    "topic_subject",
]

MAX_NAME: Final = 64
MAX_SUBJECT: Final = 256

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SUBJECT: Final = re.compile(r"[^\s.*>\x00-\x1f\x7f]+(\.[^\s.*>\x00-\x1f\x7f]+)*")
_PATTERN: Final = re.compile(r"(\*|[^\s.*>\x00-\x1f\x7f]+)(\.(\*|[^\s.*>\x00-\x1f\x7f]+))*(\.>)?|>")
_RANDOM: Final = r"[A-Za-z0-9_-]{22}"

TOKEN_BYTES: Final = 16
"""128 random bits: nobody guesses the private subject of a channel."""


def new_token() -> str:
    """Return a part of a private subject: 128 random bits, as 22 characters."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def check_name(name: str, what: str) -> str:
    """Return the name of a service, an instance or a topic, if it is valid.

    Args:
        name: 1 to 64 of the characters ``A-Z a-z 0-9 _ -``.
        what: the noun for the text of the error.

    Raises:
        ValueError: the name is not valid.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ValueError(
            f"not the name of {what}: {str(name)[:100]!r}; a name has 1 to {MAX_NAME} of the "
            "characters A-Z a-z 0-9 _ -"
        )
    return name


def check_subject(subject: str, *, pattern: bool = False) -> str:
    """Return a subject if it is valid.

    Args:
        subject: parts with dots between them, at most 256 characters.
        pattern: allow ``*`` for any part, and ``>`` for the last parts, as in a subscription.

    Raises:
        ValueError: the subject is not valid.
    """
    form = _PATTERN if pattern else _SUBJECT
    if not isinstance(subject, str) or len(subject) > MAX_SUBJECT or not form.fullmatch(subject):
        more = "" if pattern else "; * and > are only for subscribing"
        raise ValueError(f"not a NATS subject: {str(subject)[:100]!r}{more}")
    return subject


def is_private(subject: str, prefix: str) -> bool:
    """Return whether a peer's subject has the form of a channel's private subject.

    A peer could otherwise make us publish to any subject that we may publish to.
    """
    return re.fullmatch(rf"{re.escape(prefix)}\.{_RANDOM}\.{_RANDOM}", subject) is not None


def open_subject(service: str) -> str:
    """Return the subject on which any instance of a service opens a channel."""
    return f"trpc.open.{service}"


def at_subject(service: str, instance: str) -> str:
    """Return the subject on which one instance of a service opens a channel."""
    return f"trpc.at.{service}.{instance}"


def topic_subject(topic: str) -> str:
    """Return the subject of a topic."""
    return f"trpc.topic.{topic}"
