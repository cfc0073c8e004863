"""Messages in a codec that the users of a session have chosen, in place of MessagePack.

The messages that carry values of the application (:data:`CODED`) travel as ``[18, type, id, data]``
where ``data`` is the message in that codec, and ``type`` and ``id`` repeat its own for logs. All
other messages, and the handshake, stay as they are. So packets, pieces, credit and the comparison
of the two codecs do not depend on a codec.

A codec does not see the objects of the application. It gets the values that MessagePack would
carry, as plain values and :class:`Extension`, and returns such values. Both ways pass through
:class:`~trio_rpc.wire.codec.Codec`, so each limit and each rule of docs/protocol.md also holds for
another codec, whatever it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol

import msgpack

from trio_rpc.errors import DecodeError, EncodeError, RpcError
from trio_rpc.util.raised import repr_of
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec, Forms
from trio_rpc.wire.limits import Limits
from trio_rpc.wire.parts import BufferList, SplitMessage
from trio_rpc.wire.scan import check_whole, malformed

__all__ = [
    "CODED",
    "CODED_TYPE",
    "CodedCodec",
    "Extension",
    "MessageCodec",
    "ReadBuffer",
    "UserCodec",
    "WriteBuffer",
    "check_codec",
]

CODED: Final = frozenset({m.Request, m.Notification, m.Reply, m.ReplyErr, m.Item, m.Started})
"""The messages that carry values of the application."""

CODED_TYPE: Final = 18
MOST_FIELDS: Final = 5
"""Values in a coded message, as MessagePack sees it: its array and four elements."""

_HEAD: Final = bytes([0x94, CODED_TYPE])

_OF_VALUES: Final = frozenset({1, 2, 3, 7, 12, 32, *range(64, 128)})
"""Extension codes whose payload is one MessagePack value."""


class Extension(NamedTuple):
    """A value that is not of the plain types; docs/protocol.md has the table of the codes.

    Attributes:
        code: the number of its type: 1 for a tuple, 64 to 127 for types of a ``TypeRegistry``.
        value: a plain value for the codes whose payload is a value, and otherwise bytes.
    """

    code: int
    value: Any


class WriteBuffer:
    """Takes the bytes of one message; ``bytes(buffer)`` returns them."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def write_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes to the message.

        Args:
            data: the bytes.
        """
        self._data += data

    def __bytes__(self) -> bytes:
        return bytes(self._data)


class ReadBuffer:
    """Gives the bytes of one message. ``len(buffer)`` is the number of bytes that are left.

    Args:
        data: the bytes.
        max_values: see below.

    Attributes:
        max_values: the number of values that the message may have. A message with more is refused
            in any case. A codec should count before it makes the values, to bound their memory.
    """

    __slots__ = ("_data", "max_values")

    def __init__(self, data: bytes | memoryview, max_values: int) -> None:
        self._data = memoryview(data)
        self.max_values = max_values

    def __len__(self) -> int:
        return len(self._data)

    def read_bytes(self, count: int | None = None) -> bytes:
        """Return the next bytes.

        Args:
            count: how many bytes; by default all remaining ones.

        Raises:
            DecodeError: so many are not left.
        """
        count = len(self._data) if count is None else count
        if not 0 <= count <= len(self._data):
            raise DecodeError(
                f"the message claims {count} bytes, but only {len(self._data)} follow"
            )
        data = bytes(self._data[:count])
        self._data = self._data[count:]
        return data


class UserCodec(Protocol):
    """The interface of a codec: see ``Options.codec``.

    A message is a list of plain values: None, bool, int, float, str, bytes, list, dict with keys
    that are str or bytes, and :class:`Extension`. Its first element is the type of the message.

    One object serves all sessions that it is given to, so it keeps no state between messages.

    Attributes:
        name: the name of the codec, of 1 to 64 characters; both ends need the same.
        version: a number of 0 to 2^53 - 1 that changes with the form of the bytes; both ends need
            the same.
    """

    @property
    def name(self) -> str:
        """The name of the codec."""

    @property
    def version(self) -> int:
        """The version of the codec."""

    def encode(self, message: list[Any], buffer: WriteBuffer) -> None:
        """Write one message. If this raises, the caller gets EncodeError, and nothing is sent.

        Args:
            message: a list of plain values, which must not be changed.
            buffer: takes the bytes.
        """

    def decode(self, buffer: ReadBuffer) -> Any:
        """Read one message, to its last byte, and return its list of plain values.

        The bytes come from the peer. If this raises, or leaves bytes unread, or returns something
        else, the peer loses its session.

        Args:
            buffer: has the bytes.
        """


def check_codec(codec: Any) -> None:
    """Check that an object has the interface of a codec, or is None.

    Raises:
        TypeError: a part of the interface is missing, or of the wrong type.
        ValueError: its name or its version is not allowed.
    """
    if codec is None:
        return
    if isinstance(codec, type):
        raise TypeError(f"codec must be an object, not the class {codec.__name__}")
    name, version = getattr(codec, "name", None), getattr(codec, "version", None)
    if not callable(getattr(codec, "encode", None)) or not callable(getattr(codec, "decode", None)):
        raise TypeError(
            f"codec must have the methods encode and decode, and {codec!r:.200} lacks one"
        )
    if type(name) is not str or type(version) is not int:
        raise TypeError(f"codec must have a name and a version, and {codec!r:.200} lacks one")
    if not (name.isprintable() and 1 <= len(name) <= 64) or name == Forms().codec:
        raise ValueError(f"a codec cannot have the name {name!r:.200}")
    if not 0 <= version <= m.MAX_NUMBER:
        raise ValueError(f"a codec cannot have the version {version}")


class MessageCodec(Protocol):
    """The parts of a codec that the protocol of a session needs."""

    peer_limits: Limits

    @property
    def forms(self) -> Forms:
        """The codec and the registered types, which must be the same at both ends."""

    def encode(
        self, message: m.Message, references: Callable[[Any], m.Reference | None] | None = None
    ) -> bytes:
        """Encode one message."""

    def encode_parts(
        self, message: m.Message, references: Callable[[Any], m.Reference | None] | None = None
    ) -> bytes | BufferList:
        """Encode one message without copying large bytes."""

    def decode(self, packet: bytes) -> Any:
        """Decode the messages of a packet, lazily if there are several."""

    def decode_message(self, data: bytes | memoryview | SplitMessage) -> m.Message:
        """Decode bytes that are one message."""

    def let_go(self) -> None:
        """Drop references that form a cycle with this object."""


class CodedCodec:
    """Encodes and decodes the messages of one session by a user's codec.

    Args:
        inner: the codec for MessagePack, which belongs to this session alone.
        codec: the user's codec.
    """

    def __init__(self, inner: Codec, codec: UserCodec) -> None:
        self._inner = inner
        self._codec = codec
        self.forms = inner.forms._replace(codec=codec.name, version=codec.version)

    @property
    def peer_limits(self) -> Limits:
        """The limits that the peer has stated."""
        return self._inner.peer_limits

    @peer_limits.setter
    def peer_limits(self, limits: Limits) -> None:
        self._inner.peer_limits = limits

    def let_go(self) -> None:
        """Drop references that form a cycle with this object."""
        self._inner.let_go()

    def encode(
        self, message: m.Message, references: Callable[[Any], m.Reference | None] | None = None
    ) -> bytes:
        """Encode one message."""
        return bytes(self.encode_parts(message, references))

    def encode_parts(
        self, message: m.Message, references: Callable[[Any], m.Reference | None] | None = None
    ) -> bytes | BufferList:
        """Encode one message; raises EncodeError also if the user's codec raises."""
        packed = self._inner.encode_parts(message, references)
        if type(message) not in CODED:
            return packed
        buffer = WriteBuffer()
        try:
            self._codec.encode(_plain(_unpacked(bytes(packed))), buffer)
        except Exception as error:
            if type(message) is m.ReplyErr:  # a call must end (law 4), so each end accepts this
                return packed
            if isinstance(error, EncodeError):
                raise
            text = f"the codec {self._codec.name} raised {repr_of(error):.200}"
            raise EncodeError(text) from error
        call = getattr(message, "id", None)
        data: bytes = msgpack.packb([CODED_TYPE, message.TYPE, call, bytes(buffer)])
        return data

    def decode(self, packet: bytes) -> Iterator[m.Message]:
        """Decode the messages of one packet, lazily; raises DecodeError."""
        if not packet:
            raise DecodeError("an empty packet")
        walker = msgpack.Unpacker(max_buffer_size=len(packet))
        walker.feed(packet)
        start = 0
        while start < len(packet):
            try:
                walker.skip()
            except (ValueError, msgpack.UnpackException) as error:
                raise malformed(error) from error
            end = walker.tell()
            yield self._message(packet[start:end])
            start = end

    def decode_message(self, data: bytes | memoryview | SplitMessage) -> m.Message:
        """Decode bytes that are one message; raises DecodeError."""
        if not isinstance(data, SplitMessage):
            return self._message(bytes(data))
        if bytes(data.rest[:2]) != _HEAD:
            return self._checked(self._inner.decode_message(data))
        check_whole(data.rest, MOST_FIELDS)
        fields = _unpacked(bytes(data.rest))
        data.put_back(fields)
        return self._opened(fields, len(data))

    def _message(self, data: bytes) -> m.Message:
        if data[:2] != _HEAD:
            return self._checked(self._inner.decode_message(data))
        check_whole(data, MOST_FIELDS)
        return self._opened(_unpacked(data), len(data))

    def _checked(self, message: m.Message) -> m.Message:
        if type(message) in CODED and type(message) is not m.ReplyErr:
            name = type(message).__name__
            raise DecodeError(f"a {name} was sent without the codec {self._codec.name}")
        return message

    def _opened(self, fields: list[Any], size: int) -> m.Message:
        """Decode the content of a coded message of ``size`` bytes."""
        _, number, call, data = fields
        if type(data) is not bytes:
            raise DecodeError("a coded message does not carry bytes")
        limits = self._inner.limits
        buffer = ReadBuffer(data, limits.max_nodes)
        try:
            value = self._codec.decode(buffer)
            packed = msgpack.packb(_Packing(limits.max_nodes).value(value), strict_types=True)
        except DecodeError:
            raise
        except Exception as error:
            text = f"the codec {self._codec.name} cannot read it: {repr_of(error):.200}"
            raise DecodeError(text) from error
        if len(buffer):
            raise DecodeError(f"the codec {self._codec.name} left {len(buffer)} bytes unread")
        message = self._inner.decode_message(packed)
        name = type(message).__name__
        if type(message) not in CODED:
            raise DecodeError(f"a {name} must not be sent in the codec {self._codec.name}")
        if (number, call) != (message.TYPE, getattr(message, "id", None)):
            raise DecodeError(f"a {name} was announced with another type or id")
        if type(message) is m.Item:
            message.size = size
        return message


def _unpacked(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, strict_map_key=True)
    except (RpcError, ValueError, msgpack.UnpackException) as error:
        raise malformed(error) from error


def _plain(value: Any) -> Any:
    """Replace each extension in a decoded value by an :class:`Extension`."""
    cls = type(value)
    if cls is list:
        return [_plain(one) for one in value]
    if cls is dict:
        return {key: _plain(one) for key, one in value.items()}
    if cls is not msgpack.ExtType:
        return value
    code, data = value
    return Extension(code, _plain(_unpacked(data)) if code in _OF_VALUES else data)


_TIMESTAMP = -1
"""MessagePack's own extension, for which its library has a class of its own."""


class _Packing:
    """Converts a codec's values to values that MessagePack can pack, and counts their parts."""

    def __init__(self, most: int) -> None:
        self._left = most

    def value(self, value: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise DecodeError("the message has more values than this end allows")
        cls = type(value)
        if cls is list:
            return [self.value(one) for one in value]
        if cls is dict:
            self._left -= len(value)
            return {key: self.value(one) for key, one in value.items()}
        if cls is not Extension:
            return value
        code, content = value
        if code in _OF_VALUES:
            content = msgpack.packb(self.value(content), strict_types=True)
        if code == _TIMESTAMP and type(content) is bytes:
            return msgpack.Timestamp.from_bytes(content)
        return msgpack.ExtType(code, content)
