"""The codec: messages to bytes and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import msgpack

from trio_rpc.errors import DecodeError, EncodeError, RpcError
from trio_rpc.util.raised import repr_of, text_of
from trio_rpc.wire.extensions import (
    BIG_INT,
    FROZENSET,
    LEAF_DECODERS,
    MAP,
    REFERENCE,
    SET,
    TUPLE,
    decode_reference,
    encode_big_int,
)
from trio_rpc.wire.keys import KeyBuilder
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits
from trio_rpc.wire.many import DEPTH, FIRST, MOST, read_many
from trio_rpc.wire.messages import Item, Message, Reference, check_form, parse_message
from trio_rpc.wire.one_pass import Reader, Shapes, read_head
from trio_rpc.wire.parts import LARGE, BufferList, SplitMessage, pack_parts
from trio_rpc.wire.plain import ENCODER, SHORT, is_plain
from trio_rpc.wire.registry import FIRST_TAG, LAST_TAG, Registration, TypeRegistry
from trio_rpc.wire.scan import (
    SMALL,
    TRAILING,
    check_complete,
    check_packet,
    check_whole,
    is_deeper,
    lone_piece,
    malformed,
    may_be_deeper,
    may_have_more,
    walk,
)
from trio_rpc.wire.to_msgpack import EXTENSION_FACTOR, Converter

__all__ = ["Codec", "Forms"]


class Forms(NamedTuple):
    """The codec and the registered types, which must be the same at both ends of a session.

    Attributes:
        codec: the name of the codec.
        version: its version.
        tags: the codes of the registered types, in order.
    """

    codec: str = "msgpack"
    version: int = 1
    tags: tuple[int, ...] = ()


def _is_short(fields: list[Any], limits: Limits) -> bool:
    """Return whether a message is a scalar result or item, or a call with one scalar, as most are.

    The other fields of messages with so many fields are also scalars. This only saves time.
    """
    last = fields[-1]
    count = len(fields)
    if count == 4 and type(last) is list and len(last) == 1:
        last = last[0]
    elif count != 3:
        return False
    return type(last) in SHORT and limits.max_nodes >= 8 and limits.max_depth > 1


CALL_FIELDS = 6
"""Elements of a Request that has a context."""

REFUSED = 7
"""Packets that are not read in one pass after one that could not be: they may be alike."""

INT_BYTES = 8
"""Bytes of the largest integer for which nobody needs an extension."""

_CONTAINERS = frozenset({TUPLE, SET, FROZENSET, MAP})
_NO_TYPES = TypeRegistry()
_NO_FORMS = Forms()
_NOTHING: list[Any] = []
"""Stands for an empty list. It is compared with ``is`` and never appended to."""


class Codec:
    """Encodes and decodes the messages of one session.

    Attributes:
        limits: the limits of this end, which bound the values that :meth:`decode` builds.
        peer_limits: the limits that the peer has stated, which bound :meth:`encode`.
        forms: the forms that the other end must also have.
    """

    def __init__(
        self,
        registry: TypeRegistry | None = None,
        limits: Limits = DEFAULT_LIMITS,
        make_reference: Callable[[int, int], Any] = Reference,
    ) -> None:
        """Freeze ``registry``. ``make_reference`` makes the objects of references that arrive."""
        self._registry = _NO_TYPES if registry is None else registry
        self._registry.freeze()
        tags = self._registry.tags
        self.forms = Forms(tags=tags) if tags else _NO_FORMS
        self._make_reference = make_reference
        self.limits = limits
        self.peer_limits = limits
        # Packets up to this size can do no harm. No value takes less than a byte.
        self._small = min(SMALL, limits.max_nodes // 2)
        self._reader = Reader(None, self._registry, limits)
        self._refused = 0
        """The number of lone messages that are not read in one pass, since one could not be."""
        self._refused_many = 0
        """The same of packets with several messages."""
        self._most_at_once = min(MOST, limits.max_nodes) if limits.max_depth >= DEPTH else 0
        # Of the message that is being decoded:
        self._found = _NOTHING
        self._problem: str | None = None
        self._has_read_users = False
        self._has_stand_in = False
        """Whether an extension stands for an integer or a map, which MessagePack has itself."""
        self._has_bad_keys = False
        """Whether a set or map could not be made, and that may be the fault of users' values."""
        self._nesting = 0
        self._extension_bytes = 0
        self._keys: KeyBuilder | None = None

    # Made when it is needed: most sessions are idle, and the packer has a buffer of 4 KiB.
    @cached_property
    def _packer(self) -> msgpack.Packer:
        return msgpack.Packer(strict_types=True, default=_pack_other, buf_size=4096)

    def _reading(self) -> dict[str, Any]:
        """Return the options of msgpack. They are not kept, as they refer back to this object."""
        return {
            "ext_hook": self._extension,
            "object_pairs_hook": _map,
            "strict_map_key": True,
            "timestamp": 3,
        }

    def let_go(self) -> None:
        """Drop the reference that forms a cycle with this object. It decodes plain values then."""
        self.use(None)

    def encode(
        self, message: Message, references: Callable[[Any], Reference | None] | None = None
    ) -> bytes:
        """Encode one message to a single bytes object; see :meth:`encode_parts`."""
        return bytes(self.encode_parts(message, references))

    def encode_parts(
        self, message: Message, references: Callable[[Any], Reference | None] | None = None
    ) -> bytes | BufferList:
        """Encode one message without copying large bytes in arguments, results and items.

        Args:
            message: the message; neither it nor its values are changed.
            references: called with each value of an unknown type; returns the reference that
                travels instead, or None.

        Raises:
            EncodeError: a value in it cannot be sent, or exceeds the peer's limits.
        """
        fields = message.to_wire()
        try:
            if _is_short(fields, self.peer_limits) or is_plain(
                fields, self._registry, self.peer_limits
            ):
                try:
                    return ENCODER.encode(fields)
                except Exception:  # noqa: BLE001, S110 - a large int, or text that is not Unicode
                    pass
            return self._encode_converted(fields, references)
        except EncodeError:
            raise
        except RecursionError:
            raise EncodeError("nested too deeply, or contains itself") from None
        except Exception as error:
            raise EncodeError(f"cannot be sent: {text_of(error) or repr_of(error):.200}") from error

    def _encode_converted(
        self, fields: list[Any], references: Callable[[Any], Reference | None] | None
    ) -> bytes | BufferList:
        limits, most, pack = self.peer_limits, self.peer_limits.max_nodes, self._packer.pack
        if references is not None and len(fields) == CALL_FIELDS and "metadata" in fields[-1]:
            # Only arguments may be functions and streams.
            Converter(self._registry, limits, pack, None, self._check_opaque).items(fields[-1:], 1)
        lowering = Converter(self._registry, limits, pack, references, self._check_opaque)
        fields = lowering.items(fields, 1)
        if lowering.has_opaque:
            packed: bytes = pack(fields)
            walk(memoryview(packed), most, limits.max_depth)
            return packed
        parts = pack_parts(fields, self._packer, most // 2)
        if parts is not None:
            return parts
        packed = pack(fields)
        if len(packed) > LARGE:
            # A kept packer would hold the memory of this message, in each session.
            del self._packer
        if may_have_more(packed, most):
            walk(memoryview(packed), most)
        return packed

    def use(self, shapes: Shapes | None) -> None:
        """Decode lone messages into these annotated types. Such a message has its ``shape`` set."""
        self._reader = Reader(shapes, self._registry, self.limits)

    def decode(self, packet: bytes) -> Iterable[Message]:
        """Decode the messages of one packet, lazily if there are several.

        Raises DecodeError at the first malformed message: here, or from the iterator.
        """
        if not packet:
            raise DecodeError("an empty packet")
        self._forget()
        message = self._read_in_one_pass(packet)
        if message is not None:
            return (message,)
        if packet[:2] in FIRST and len(packet) <= self._most_at_once:
            messages = self._read_many(packet)
            if messages is not None:
                return messages
        if len(packet) <= self._small:  # most often it is one message
            try:
                fields = self._unpack(packet)
            except msgpack.ExtraData as error:
                rest = error.extra
                first = self._message(error.unpacked, packet, 0, len(packet) - len(rest))
                return self._with_rest(first, rest)
            return (self._message(fields, packet, 0, len(packet)),)
        piece = lone_piece(packet)
        if piece is not None:
            return (piece,)
        check_packet(packet, self.limits.max_nodes)
        return self._decode_all(packet)

    def _read_in_one_pass(self, packet: bytes) -> Message | None:
        """Read a lone message in one pass; return None if it must be read in another way."""
        # No value takes less than a byte, and extensions are not accepted.
        head = read_head(packet) if len(packet) <= self.limits.max_nodes else None
        if head is None:
            return None
        if self._refused:
            self._refused -= 1
            return None
        try:
            return head.read(packet, self._reader)
        except Exception:  # noqa: BLE001 - msgspec raises several kinds of errors
            self._refused = REFUSED
            return None

    def _read_many(self, packet: bytes) -> list[Message] | None:
        """Read short messages in one pass; return None if they must be read in another way."""
        if self._refused_many:
            self._refused_many -= 1
            return None
        messages = read_many(packet)
        if messages is None:
            self._refused_many = REFUSED
        return messages

    def _with_rest(self, first: Message, rest: bytes) -> Iterator[Message]:
        """Yield a message and those after it. The first Request of a session comes in this way."""
        yield first
        last = self._read_in_one_pass(rest)
        if last is not None:
            yield last
        else:
            yield from self._decode_all(rest)

    def _decode_all(self, packet: bytes) -> Iterator[Message]:
        # Not kept between packets: it holds 40 KiB, and a server may have many sessions.
        unpacker = msgpack.Unpacker(max_buffer_size=len(packet), **self._reading())
        unpacker.feed(packet)
        start = 0
        try:
            for fields in unpacker:
                end = unpacker.tell()
                yield self._message(fields, packet, start, end)
                start = end
        except RpcError:
            raise
        except Exception as error:
            # Decoders of extensions may raise anything, and msgpack raises more than it documents.
            raise malformed(error) from error
        if start != len(packet):
            raise malformed(msgpack.OutOfData())

    def decode_message(self, data: bytes | memoryview | SplitMessage) -> Message:
        """Decode bytes that are exactly one message. Raises DecodeError.

        The caller checks that there are at most ``limits.max_message`` bytes, before it collects
        them.
        """
        self._forget()
        size = len(data)
        outside = data if isinstance(data, SplitMessage) else None
        if not isinstance(data, SplitMessage) and size <= self.limits.max_nodes:
            message = self._read_in_one_pass(bytes(data))
            if message is not None:
                return message
        whole = data.rest if isinstance(data, SplitMessage) else data
        check_whole(whole, self.limits.max_nodes)
        try:
            fields = self._unpack(whole)
        except msgpack.ExtraData:
            raise DecodeError(TRAILING) from None
        if outside is not None:
            outside.put_back(fields)
        return self._message(fields, whole, 0, size)

    def _unpack(self, data: bytes | memoryview) -> Any:
        """Decode one value. Raises DecodeError, and ExtraData if more follows it."""
        try:
            # unpackb itself bounds every length by the length of the data.
            return msgpack.unpackb(data, **self._reading())
        except (RpcError, msgpack.ExtraData):
            raise
        except Exception as error:
            # Decoders of extensions may raise anything, and msgpack raises more than it documents.
            raise malformed(error) from error

    def _message(self, fields: Any, packet: bytes | memoryview, start: int, end: int) -> Message:
        """Make the message from ``fields``, to which ``packet[start:end]`` was decoded."""
        most = self.limits.max_depth
        # A container takes at least a byte, so most messages are too short to be too deep.
        if end - start > most and may_be_deeper(packet, start, end, most):
            if self._extension_bytes:
                # Objects that users decoded from extensions do not show how deep these were.
                walk(memoryview(packet)[start:end], self.limits.max_nodes, most)
            elif is_deeper(fields, most):
                raise DecodeError(f"nested more than {most} levels deep")
        message = parse_message(fields)
        if type(message) is Item:
            message.size = end - start
        if self._has_stand_in or self._has_bad_keys:
            arrived = self._read_again(packet[start:end])
            if self._has_stand_in:
                self._has_stand_in = False
                check_form(message, arrived)
        if self._extension_bytes or self._found:
            self._attach(message)
        return message

    def _read_again(self, data: bytes | memoryview) -> Any:
        """Decode a message that has been decoded before, and leave its extensions as they are.

        If a set or map could not be made, this also decodes the extensions, but without the
        registry. Raises DecodeError for a key that is not allowed and is not a user's value.
        """
        plain = Codec(limits=self.limits)
        checks_keys = self._has_bad_keys

        def as_it_arrived(code: int, payload: bytes) -> msgpack.ExtType:
            if checks_keys:
                plain._extension(code, payload)
            return msgpack.ExtType(code, payload)

        try:
            return msgpack.unpackb(data, ext_hook=as_it_arrived, strict_map_key=True)
        except RpcError:
            raise
        except Exception as error:
            raise malformed(error) from error

    def _attach(self, message: Any) -> None:
        """Set the references and the problem that were found in the message's extensions."""
        found, problem = self._found, self._problem
        self._forget()
        if hasattr(message, "problem"):
            message.problem = problem
        if hasattr(message, "references"):
            if found and _holds_one(getattr(message, "context", None), found):
                raise DecodeError("a context may not carry references")
            message.references = tuple(found)
        elif found:
            raise DecodeError(f"{type(message).__name__} may not carry references")

    def _forget(self) -> None:
        if self._extension_bytes or self._found:
            self._found, self._problem, self._extension_bytes = _NOTHING, None, 0
            self._has_read_users = self._has_bad_keys = False
            self._keys = None

    def _extension(self, code: int, data: bytes) -> Any:
        leaf = LEAF_DECODERS.get(code)
        if leaf is not None:
            self._has_stand_in |= code == BIG_INT and len(data) <= INT_BYTES
            return leaf(data)
        if code == REFERENCE:
            reference = decode_reference(data, self._make_reference)
            if self._found is _NOTHING:
                self._found = []
            self._found.append(reference)
            return reference
        if code in _CONTAINERS:
            return self._container(code, self._payload(data))
        if not FIRST_TAG <= code <= LAST_TAG:
            return msgpack.ExtType(code, data)
        registration = self._registry.for_tag(code)
        value = self._payload(data)  # the limits apply to it even if the tag is unknown
        if registration is None:
            return msgpack.ExtType(code, data)
        return self._registered(registration, value)

    def _check_opaque(self, data: bytes) -> None:
        """Check that the peer can read the payload of an extension that is unknown here."""
        reader = Codec(limits=self.peer_limits)
        check_whole(data, self.peer_limits.max_nodes)
        reader._payload(data)

    def _payload(self, data: bytes) -> Any:
        """Decode the value that an extension carries."""
        self._extension_bytes += len(data)
        if self._extension_bytes > EXTENSION_FACTOR * self.limits.max_message:
            raise DecodeError("too many bytes in extensions inside each other")
        if self._nesting >= self.limits.max_depth:
            raise DecodeError(f"nested more than {self.limits.max_depth} levels deep")
        if len(data) > SMALL:
            check_complete(data)  # the values in it were counted with those of the message
        self._nesting += 1
        try:
            return self._unpack(data)
        except msgpack.ExtraData:
            raise DecodeError(TRAILING) from None
        finally:
            self._nesting -= 1

    def _container(self, code: int, items: Any) -> Any:
        if type(items) is not list:
            raise DecodeError(f"extension {code} does not carry an array")
        if code == TUPLE:
            return tuple(items)
        if code == MAP and len(items) % 2:
            raise DecodeError("a map with a key and no value")
        keys = self._keys = self._keys or KeyBuilder()
        try:
            if code == MAP:
                self._has_stand_in |= not items or type(items[0]) is str
                return keys.map(items[::2], items[1::2])
            made = keys.set(items)
        except DecodeError:
            raise
        except Exception as error:
            if not self._has_read_users:
                raise
            # Users decide which of their values are hashable, so only this call fails.
            self._has_bad_keys = True
            self._note_problem(
                f"a set or map of users' values could not be decoded: {repr_of(error):.200}"
            )
            return None
        return made if code == SET else frozenset(made)

    def _registered(self, registration: Registration, value: Any) -> Any:
        self._has_read_users = True
        try:
            return registration.decode(value)
        except Exception as error:  # noqa: BLE001 - a user's function; only this call fails
            name = registration.cls.__qualname__
            problem = f"a value of type {name} could not be decoded: {repr_of(error):.200}"
            self._note_problem(problem)
            return None

    def _note_problem(self, problem: str) -> None:
        if self._problem is None:
            self._problem = problem


def _holds_one(value: Any, references: list[Any]) -> bool:
    """Return whether a decoded value contains one of the references."""
    ids, waiting = set(map(id, references)), [value]
    while waiting:
        one = waiting.pop()
        if id(one) in ids:
            return True
        if type(one) is dict:
            waiting += [*one, *one.values()]
        elif type(one) in (list, tuple, set, frozenset):
            waiting += one
    return False


def _pack_other(value: Any) -> msgpack.ExtType:
    """Pack an int that the packer cannot; all other values have been converted before."""
    if type(value) is int:
        return encode_big_int(value)
    raise EncodeError(f"a value of type {type(value).__qualname__} cannot be sent")


def _map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    # A key given twice means different things to different readers.
    made = dict(pairs)
    if len(made) != len(pairs):
        raise DecodeError("a map that has a key twice")
    return made
