"""Reading and changing exceptions of any class, whatever the code of that class does.

An exception is often of a user's class. Its ``str()`` and ``repr()`` may fail, and an attribute of
a frozen dataclass cannot be assigned, so that ``add_note`` or ``exc.__context__ = ...`` would raise
an error in place of the user's own. Here no code of the class changes anything, and a text is
always found.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final

__all__ = [
    "add_note",
    "attributes_of",
    "check_repr",
    "described",
    "repr_of",
    "set_cause",
    "set_context",
    "set_notes",
    "set_traceback",
    "text_of",
]

_SLOTS: Final[Any] = vars(BaseException)


def text_of(exc: BaseException) -> str:
    """Return ``str(exc)``, or a text that says that it failed."""
    try:
        return str.__str__(str(exc))
    except Exception:  # noqa: BLE001 - an error's text must not hide the error
        return f"<str() of {type(exc).__name__} failed>"


def repr_of(value: object) -> str:
    """Return ``repr(value)``, or a text that says that it failed."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - likewise
        return f"<repr() of {type(value).__name__} failed>"


def described(exc: BaseException) -> str:
    """Return the name of the class of an exception, and its text."""
    return f"{type(exc).__name__}: {text_of(exc)}"


def check_repr(exc: BaseException) -> None:
    """Raise RuntimeError in place of an exception of a user's function whose ``repr()`` fails.

    Trio takes the ``repr()`` of each exception that ends a task. A failure there ends its run.
    """
    try:
        repr(exc)
    except Exception:  # noqa: BLE001 - likewise
        raise RuntimeError(f"{described(exc)}, whose repr() failed") from exc


def attributes_of(exc: BaseException) -> dict[str, Any]:
    """Return the ``__dict__`` of an exception, without running code of its class."""
    return _SLOTS["__dict__"].__get__(exc)  # type: ignore[no-any-return]


def add_note(exc: BaseException, note: str) -> None:
    """Add a note as ``exc.add_note`` does, even if the class is frozen.

    Notes that are not a list, because a program has assigned something else, stay as they are.
    """
    notes = attributes_of(exc).setdefault("__notes__", [])
    if isinstance(notes, list):
        notes.append(note)


def set_notes(exc: BaseException, notes: list[str]) -> None:
    """Set the notes of an exception; no notes change nothing."""
    if notes:
        attributes_of(exc)["__notes__"] = notes


def set_cause(exc: BaseException, cause: BaseException) -> None:
    """Set the cause as ``exc.__cause__ = cause`` does, even if the class is frozen."""
    _SLOTS["__cause__"].__set__(exc, cause)


def set_context(exc: BaseException, context: BaseException | None) -> None:
    """Set the context as ``exc.__context__ = context`` does, even if the class is frozen."""
    _SLOTS["__context__"].__set__(exc, context)


def set_traceback(exc: BaseException, traceback: TracebackType | None) -> None:
    """Set the traceback as ``exc.__traceback__ = traceback`` does, even if the class is frozen."""
    _SLOTS["__traceback__"].__set__(exc, traceback)
