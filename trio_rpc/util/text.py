"""Short, one-line text made of untrusted values."""

from __future__ import annotations

__all__ = ["clip", "for_people", "one_line", "quoted"]


def clip(text: str, most: int) -> str:
    """Cut ``text`` to at most ``most`` characters, and state how many there were.

    Lone surrogates, which no message can carry, are written as escapes.
    """
    text = str.__str__(text)  # the codec expects an exact str, not a subclass
    whole = len(text)
    if whole > most:
        suffix = f"… ({whole} characters)"
        text = text[: max(0, most - len(suffix))] + suffix
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()[:most]


def for_people(text: object) -> str:
    """Return at most 1,000 characters of a text that is sent for people, safe to encode."""
    return str(text)[:1000].encode(errors="replace").decode()


def one_line(text: str, most: int = 500) -> str:
    """Cut ``text`` to ``most`` characters, and escape line ends and other control characters."""
    text = clip(text, most)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def quoted(name: str, most: int = 100) -> str:
    """Quote a name that came from the peer, cut to ``most`` characters."""
    return repr(clip(name, most))


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()
