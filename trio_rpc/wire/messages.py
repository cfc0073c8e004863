"""The messages of docs/protocol.md, one class each, to and from their MessagePack arrays.

A class makes the list of its fields (``to_wire``), and checks and reads a list that arrived
(``from_wire``). Its docstring states the meaning in the words of the sender; protocol/ defines it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from trio_rpc.errors import DecodeError

__all__ = [
    "MAX_NUMBER",
    "PROTOCOL_VERSION",
    "Cancel",
    "Credit",
    "EndOfItems",
    "Goodbye",
    "Hello",
    "Item",
    "LastPiece",
    "Message",
    "Notification",
    "Piece",
    "Ping",
    "Pong",
    "Reference",
    "Reply",
    "ReplyErr",
    "Request",
    "Started",
    "Welcome",
    "check_form",
    "parse_message",
]

PROTOCOL_VERSION = 1
MAX_NUMBER = 2**53 - 1
"""The largest number in a protocol message: every language can hold it exactly."""

Fields: TypeAlias = list[Any]


class Reference:
    """A function or stream that stays at its owner: only its kind and number are sent."""

    __slots__ = ("kind", "number")

    def __init__(self, kind: int, number: int) -> None:
        self.kind = kind
        self.number = number

    def __repr__(self) -> str:
        return f"Reference(kind={self.kind}, number={self.number})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return (self.kind, self.number) == (other.kind, other.number)

    def __hash__(self) -> int:
        return hash((self.kind, self.number))


def _is_id(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_NUMBER


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_NUMBER


def _check(condition: bool, complaint: str) -> None:  # noqa: FBT001 - an assertion, not a mode
    if not condition:
        raise DecodeError(complaint)


def _length(fields: Fields, name: str, least: int, most: int) -> None:
    if not least <= len(fields) <= most:
        expected = str(least) if least == most else f"{least} to {most}"
        raise DecodeError(f"{name} has {len(fields)} elements instead of {expected}")


def _trimmed(fields: Fields, least: int) -> Fields:
    """Remove trailing elements that are None or empty."""
    while len(fields) > least and not fields[-1]:
        fields.pop()
    return fields


@dataclass(slots=True)
class Request:
    """Start a handler and tell me how it ended. Lives until its Reply or ReplyErr."""

    TYPE: ClassVar[int] = 1
    id: int
    method: str
    args: list[Any]
    kwargs: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    problem: str | None = None
    references: tuple[Any, ...] = ()
    shape: Any = field(default=None, compare=False)
    """The Shape that the arguments have been decoded to, if that is their annotated type."""

    def to_wire(self) -> Fields:
        if self.context:
            return [1, self.id, self.method, self.args, self.kwargs or {}, self.context]
        if self.kwargs:
            return [1, self.id, self.method, self.args, self.kwargs]
        return [1, self.id, self.method, self.args]

    @classmethod
    def from_wire(cls, fields: Fields) -> Request:
        # Most Requests are short and correct: one fast check; error texts only on a failure.
        if (
            len(fields) != 4
            or type(fields[1]) is not int
            or not 0 < fields[1] <= MAX_NUMBER
            or type(fields[2]) is not str
            or type(fields[3]) is not list
        ):
            _length(fields, "Request", 4, 6)
            if not _is_id(fields[1]):
                raise DecodeError("Request has an id that is not a positive integer")
            _check_call(fields, "Request", 2)
            return cls(*fields[1:])
        return cls(fields[1], fields[2], fields[3])


@dataclass(slots=True)
class Notification:
    """Start a handler; I do not want to know how it ends."""

    TYPE: ClassVar[int] = 2
    method: str
    args: list[Any]
    kwargs: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    problem: str | None = None
    references: tuple[Any, ...] = ()
    shape: Any = field(default=None, compare=False)
    """As in a Request."""

    def to_wire(self) -> Fields:
        return _trimmed([2, self.method, self.args, self.kwargs or {}, self.context or {}], 3)

    @classmethod
    def from_wire(cls, fields: Fields) -> Notification:
        _length(fields, "Notification", 3, 5)
        _check_call(fields, "Notification", 1)
        return cls(*fields[1:])


@dataclass(slots=True)
class Reply:
    """The handler returned this. Ends its Request."""

    TYPE: ClassVar[int] = 3
    id: int
    result: Any
    problem: str | None = None
    references: tuple[Any, ...] = ()
    shape: Any = field(default=None, compare=False)
    """The Shape that the result has been decoded to, if that is its annotated type."""

    def to_wire(self) -> Fields:
        return [3, self.id, self.result]

    @classmethod
    def from_wire(cls, fields: Fields) -> Reply:
        if len(fields) != 3:
            _length(fields, "Reply", 3, 3)
        if type(fields[1]) is not int or not 0 < fields[1] <= MAX_NUMBER:
            raise DecodeError("Reply has an id that is not a positive integer")
        return cls(fields[1], fields[2])


@dataclass(slots=True)
class ReplyErr:
    """The call failed like this. Ends its Request."""

    TYPE: ClassVar[int] = 4
    id: int
    error: dict[str, Any]
    problem: str | None = None

    def to_wire(self) -> Fields:
        return [4, self.id, self.error]

    @classmethod
    def from_wire(cls, fields: Fields) -> ReplyErr:
        _length(fields, "ReplyErr", 3, 3)
        _check(_is_id(fields[1]), "ReplyErr has an id that is not a positive integer")
        _check(_is_str_map(fields[2]), "ReplyErr has an error that is not a map")
        return cls(fields[1], fields[2])


@dataclass(slots=True)
class Cancel:
    """I no longer want that result: stop the handler, then tell me as always how it ended."""

    TYPE: ClassVar[int] = 5
    id: int
    reason: str | None = None

    def to_wire(self) -> Fields:
        return _trimmed([5, self.id, self.reason], 2)

    @classmethod
    def from_wire(cls, fields: Fields) -> Cancel:
        _length(fields, "Cancel", 2, 3)
        _check(_is_id(fields[1]), "Cancel has an id that is not a positive integer")
        reason = fields[2] if len(fields) > 2 else None
        _check(reason is None or type(reason) is str, "Cancel has a reason that is not a string")
        return cls(fields[1], reason)


@dataclass(slots=True)
class Hello:
    """My version, my limits and my credentials. Each end sends it once, before all else."""

    TYPE: ClassVar[int] = 10
    version: int
    info: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def to_wire(self) -> Fields:
        return [10, self.version, self.info]

    @classmethod
    def from_wire(cls, fields: Fields) -> Hello:
        _length(fields, "Hello", 3, 3)
        _check(_is_count(fields[1]), "Hello has no version")
        _check(_is_str_map(fields[2]), "Hello has information that is not a map")
        return cls(fields[1], fields[2])


@dataclass(slots=True)
class Welcome:
    """Your Hello is accepted: from here on you may call."""

    TYPE: ClassVar[int] = 11

    def to_wire(self) -> Fields:
        return [11]

    @classmethod
    def from_wire(cls, fields: Fields) -> Welcome:
        _length(fields, "Welcome", 1, 1)
        return cls()


@dataclass(slots=True)
class Goodbye:
    """I start nothing new. ``code`` is for programs, ``message`` for people."""

    TYPE: ClassVar[int] = 12
    code: str
    message: str = ""

    def to_wire(self) -> Fields:
        return [12, self.code, self.message]

    @classmethod
    def from_wire(cls, fields: Fields) -> Goodbye:
        _length(fields, "Goodbye", 3, 3)
        _check(all(type(text) is str for text in fields[1:]), "Goodbye must carry two strings")
        return cls(fields[1], fields[2])


@dataclass(slots=True)
class Ping:
    """Ask for a Pong with the same ``number``, as a sign of life."""

    TYPE: ClassVar[int] = 13
    number: int

    def to_wire(self) -> Fields:
        return [13, self.number]

    @classmethod
    def from_wire(cls, fields: Fields) -> Ping:
        return cls(_one_count(fields, "Ping"))


@dataclass(slots=True)
class Pong:
    """The answer to the Ping of that number."""

    TYPE: ClassVar[int] = 14
    number: int

    def to_wire(self) -> Fields:
        return [14, self.number]

    @classmethod
    def from_wire(cls, fields: Fields) -> Pong:
        return cls(_one_count(fields, "Pong"))


@dataclass(slots=True)
class Credit:
    """You may send ``count`` more Notifications, or ``count`` Items with ``size`` bytes."""

    TYPE: ClassVar[int] = 15
    count: int
    id: int | None = None
    """The call whose Items are meant, or None for Notifications."""
    size: int = 0

    def to_wire(self) -> Fields:
        if self.id is None:
            return [15, self.count]
        return _trimmed([15, self.count, self.id, self.size], 3)

    @classmethod
    def from_wire(cls, fields: Fields) -> Credit:
        _length(fields, "Credit", 2, 4)
        _check(
            len(fields) < 3 or _is_id(fields[2]), "Credit has an id that is not a positive integer"
        )
        amounts = (fields[1], *fields[3:])
        _check(all(map(_is_count, amounts)) and sum(amounts) > 0, "Credit grants nothing")
        return cls(*fields[1:])


@dataclass(slots=True)
class Piece:
    """The next bytes of a message too large for one packet; more follow."""

    TYPE: ClassVar[int] = 16
    data: bytes | memoryview

    def to_wire(self) -> Fields:
        return [16, self.data]

    @classmethod
    def from_wire(cls, fields: Fields) -> Piece:
        data = _bytes(fields, "Piece")
        _check(len(data) > 0, "Piece carries no bytes")
        return cls(data)


@dataclass(slots=True)
class LastPiece:
    """The last bytes of a message too large for one packet.

    Without bytes it withdraws the message: the rest will not be sent.
    """

    TYPE: ClassVar[int] = 17
    data: bytes | memoryview

    def to_wire(self) -> Fields:
        return [17, self.data]

    @classmethod
    def from_wire(cls, fields: Fields) -> LastPiece:
        return cls(_bytes(fields, "LastPiece"))


@dataclass(slots=True)
class Item:
    """The handler of that call has yielded ``value``, for which its caller gave credit."""

    TYPE: ClassVar[int] = 20
    id: int
    value: Any
    problem: str | None = None
    size: int = field(default=0, init=False, compare=False)
    """Bytes of the message, as it arrived."""
    shape: Any = field(default=None, compare=False)
    """The Shape that the value has been decoded to, if that is its annotated type."""

    def to_wire(self) -> Fields:
        return [20, self.id, self.value]

    @classmethod
    def from_wire(cls, fields: Fields) -> Item:
        if len(fields) != 3:
            _length(fields, "Item", 3, 3)
        if type(fields[1]) is not int or not 0 < fields[1] <= MAX_NUMBER:
            raise DecodeError("Item has an id that is not a positive integer")
        return cls(fields[1], fields[2])


@dataclass(slots=True)
class EndOfItems:
    """That call has no more Items, but its handler goes on."""

    TYPE: ClassVar[int] = 21
    id: int

    def to_wire(self) -> Fields:
        return [21, self.id]

    @classmethod
    def from_wire(cls, fields: Fields) -> EndOfItems:
        _length(fields, "EndOfItems", 2, 2)
        _check(_is_id(fields[1]), "EndOfItems has an id that is not a positive integer")
        return cls(fields[1])


@dataclass(slots=True)
class Started:
    """The handler of that call has called ``task_status.started(value)``."""

    TYPE: ClassVar[int] = 23
    id: int
    value: Any
    problem: str | None = None

    def to_wire(self) -> Fields:
        return [23, self.id, self.value]

    @classmethod
    def from_wire(cls, fields: Fields) -> Started:
        _length(fields, "Started", 3, 3)
        _check(_is_id(fields[1]), "Started has an id that is not a positive integer")
        return cls(fields[1], fields[2])


Message: TypeAlias = (
    Request
    | Notification
    | Reply
    | ReplyErr
    | Cancel
    | Hello
    | Welcome
    | Goodbye
    | Ping
    | Pong
    | Credit
    | Piece
    | LastPiece
    | Item
    | EndOfItems
    | Started
)

_CLASSES: tuple[type[Message], ...] = Message.__args__
_PARSERS = {cls.TYPE: cls.from_wire for cls in _CLASSES}


def parse_message(fields: object) -> Message:
    """Make a message from a decoded MessagePack value.

    Raises DecodeError if the value is not a message.
    """
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise DecodeError("a message must be an array that begins with its type, an integer")
    try:
        parser = _PARSERS[fields[0]]
    except KeyError:
        raise DecodeError(f"there is no message type {fields[0]}") from None
    return parser(fields)


def check_form(message: Message, fields: object) -> None:
    """Check that no extension stands for an integer or a map of the protocol itself.

    An extension that holds a small integer, or a map with text keys, is decoded to the same value
    as MessagePack's own. Raises DecodeError if it is an element of the message. If it is an entry
    of a context or a Hello, the entry is put back as it arrived, for the checks of these.

    Args:
        message: the message.
        fields: its array, in which extensions are as they arrived.
    """
    arrived = parse_message(fields)
    for name in ("context", "info"):
        entries: dict[str, Any] = getattr(message, name, None) or {}
        # Credentials, and the entries of the metadata, are values of the application.
        entries |= {
            key: value
            for key, value in (getattr(arrived, name, None) or {}).items()
            if key != "credentials" and (key, type(value)) != ("metadata", dict)
        }


_STR = frozenset({str})


def _is_str_map(value: object) -> bool:
    return type(value) is dict and _STR.issuperset(map(type, value))


def _check_call(fields: Fields, name: str, at: int) -> None:
    """Check method, args, kwargs and context, which begin at index ``at``."""
    if type(fields[at]) is not str:
        raise DecodeError(f"{name} has a method that is not a string")
    if type(fields[at + 1]) is not list:
        raise DecodeError(f"{name} has arguments that are not an array")
    for extra in fields[at + 2 :]:
        if not _is_str_map(extra):
            raise DecodeError(f"{name} has keyword arguments or a context that is not a map")


def _one_count(fields: Fields, name: str) -> int:
    _length(fields, name, 2, 2)
    count = fields[1]
    if type(count) is not int or not 0 <= count <= MAX_NUMBER:
        raise DecodeError(f"{name} has a number that is not an integer from 0 to 2**53 - 1")
    return count


def _bytes(fields: Fields, name: str) -> bytes:
    _length(fields, name, 2, 2)
    data = fields[1]
    if type(data) is not bytes:
        raise DecodeError(f"{name} does not carry bytes")
    return data
