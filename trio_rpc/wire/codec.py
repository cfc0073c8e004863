"""Messages to bytes and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgpack

from trio_rpc.errors import DecodeError, EncodeError, RpcError
from trio_rpc.wire.extensions import (
    FROZENSET,
    LEAF_DECODERS,
    MAP,
    REFERENCE,
    SCALARS,
    SET,
    TUPLE,
    decode_reference,
    encode_big_int,
)
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits
from trio_rpc.wire.lowering import EXTENSION_FACTOR, Lowering
from trio_rpc.wire.messages import Message, Reference, parse_message
from trio_rpc.wire.registry import FIRST_TAG, LAST_TAG, Registration, TypeRegistry
from trio_rpc.wire.scan import SMALL, check_whole, count_nodes, is_deeper, malformed, split

__all__ = ["Codec"]

MAX_COLLISIONS = 100
"""Keys of one map or set that may have the hash of another one: numbers can be chosen to."""

_CONTAINERS = frozenset({TUPLE, SET, FROZENSET, MAP})


class Codec:
    """Turns messages into bytes and bytes into messages, for one session.

    Attributes:
        limits: what this end takes. It bounds what :meth:`decode` builds.
        peer_limits: what the other end takes, as far as it has said. It bounds :meth:`encode`.
    """

    def __init__(
        self, registry: TypeRegistry | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """``registry`` is frozen from here on."""
        self._registry = TypeRegistry() if registry is None else registry
        self._registry.freeze()
        self.limits = limits
        self.peer_limits = limits
        packer = msgpack.Packer(strict_types=True, default=_pack_other, buf_size=4096)
        self._pack: Callable[[Any], bytes] = packer.pack
        # Of the message that is being decoded:
        self._found: list[Reference] = []
        self._problem: str | None = None
        self._nesting = 0
        self._extension_bytes = 0

    def encode(
        self, message: Message, references: Callable[[Any], Reference | None] | None = None
    ) -> bytes:
        """Encode one message.

        Args:
            message: it is not changed, nor is what it carries.
            references: asked for each value of no type we know; returns what is to travel
                instead, or None.

        Raises:
            EncodeError: something in it cannot be sent, or is more than the peer takes.
        """
        fields = message.to_wire()
        try:
            for value in fields:
                # Nearly always the arguments are a list of scalars and nothing is to be done.
                cls = type(value)
                if cls not in SCALARS and not (
                    cls is list and SCALARS.issuperset(map(type, value))
                ):
                    fields = self._lower(fields, references)
                    break
            packed = self._pack(fields)
            if len(packed) > self.peer_limits.max_nodes:
                count_nodes(memoryview(packed), self.peer_limits.max_nodes)
        except EncodeError:
            raise
        except RecursionError:
            raise EncodeError("nested too deeply, or contains itself") from None
        except Exception as error:
            raise EncodeError(f"cannot be sent: {str(error) or repr(error):.200}") from error
        return packed

    def _lower(
        self, fields: list[Any], references: Callable[[Any], Reference | None] | None
    ) -> list[Any]:
        lowering = Lowering(self._registry, self.peer_limits, self._pack, references)
        return lowering.items(fields, 1)

    def decode(self, packet: bytes) -> Iterator[Message]:
        """Decode the messages of one packet, one at a time.

        Raises DecodeError where they stop being well formed, whatever the bytes.
        """
        if not packet:
            raise DecodeError("an empty packet")
        if len(packet) > SMALL:
            rest = packet
        else:  # most often it is one message
            try:
                fields = self._unpack(packet)
            except msgpack.ExtraData as error:
                rest = error.extra
                yield self._finish(error.unpacked, len(packet) - len(rest))
            else:
                yield self._finish(fields, len(packet))
                return
        for part in split(rest, self.limits.max_nodes):
            yield self._finish(self._unpack(part), len(part))

    def decode_message(self, data: bytes) -> Message:
        """Decode bytes that are exactly one message. Raises DecodeError.

        That they are at most ``limits.max_message`` is for the caller to see to, before it
        gathers so many.
        """
        check_whole(data, self.limits.max_nodes)
        return self._finish(self._unpack(data), len(data))

    def _unpack(self, data: bytes | memoryview) -> Any:
        self._found = []
        self._problem = None
        self._nesting = self._extension_bytes = 0
        try:
            return self._build(data)
        except (RpcError, msgpack.ExtraData):
            raise
        except Exception as error:
            # Readers of extensions raise what they like, and the library more than it says.
            raise malformed(error) from error

    def _build(self, data: bytes | memoryview) -> Any:
        # Every length is bounded by that of the data, which is unpackb's own rule.
        return msgpack.unpackb(
            data, ext_hook=self._extension, object_pairs_hook=_map, strict_map_key=True
        )

    def _finish(self, fields: Any, size: int) -> Message:
        # A container takes a byte at least: most messages are too short to be too deep.
        if size > self.limits.max_depth and is_deeper(fields, self.limits.max_depth):
            raise DecodeError(f"nested more than {self.limits.max_depth} levels deep")
        message = parse_message(fields)
        if self._found or self._problem:
            self._attach(message)
        return message

    def _attach(self, message: Any) -> None:
        if hasattr(message, "references"):
            message.references = tuple(self._found)
            message.problem = self._problem
        elif self._found:
            raise DecodeError(f"{type(message).__name__} may not carry references")

    def _extension(self, code: int, data: bytes) -> Any:
        leaf = LEAF_DECODERS.get(code)
        if leaf is not None:
            return leaf(data)
        if code == REFERENCE:
            reference = decode_reference(data)
            self._found.append(reference)
            return reference
        if code in _CONTAINERS:
            return self._container(code, self._payload(data))
        if not FIRST_TAG <= code <= LAST_TAG:
            return msgpack.ExtType(code, data)
        registration = self._registry.for_tag(code)
        if registration is None:
            check_whole(data, self.limits.max_nodes)
            return msgpack.ExtType(code, data)
        return self._registered(registration, self._payload(data))

    def _payload(self, data: bytes) -> Any:
        """Decode the value that an extension carries."""
        self._extension_bytes += len(data)
        if self._extension_bytes > EXTENSION_FACTOR * self.limits.max_message:
            raise DecodeError("too many bytes in extensions inside each other")
        if len(data) > SMALL:
            check_whole(data, self.limits.max_nodes)
        self._nesting += 1
        if self._nesting > self.limits.max_depth:
            raise DecodeError(f"nested more than {self.limits.max_depth} levels deep")
        value = self._build(data)
        self._nesting -= 1
        return value

    def _container(self, code: int, items: Any) -> Any:
        if type(items) is not list:
            raise DecodeError(f"extension {code} carries something else than an array")
        if code == TUPLE:
            return tuple(items)
        if code == MAP:
            return _odd_map(items)
        return _set(items, code)

    def _registered(self, registration: Registration, value: Any) -> Any:
        try:
            return registration.decode(value)
        except Exception as error:  # noqa: BLE001 - the users' function; its call fails alone
            if self._problem is None:
                name = registration.cls.__qualname__
                self._problem = f"a value of type {name} could not be decoded: {error!r:.200}"
            return None


def _pack_other(value: Any) -> msgpack.ExtType:
    """Pack what the packer itself cannot: of what is lowered, that is only a large int."""
    if type(value) is int:
        return encode_big_int(value)
    raise EncodeError(f"a value of type {type(value).__qualname__} cannot be sent")


def _map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    # A key given twice means different things to different readers.
    made = dict(pairs)
    if len(made) != len(pairs):
        raise DecodeError("a map that has a key twice")
    return made


def _guard(keys: list[Any]) -> None:
    if len(keys) - len(set(map(hash, keys))) > MAX_COLLISIONS:
        raise DecodeError("keys that were chosen to have the same hash")


def _odd_map(items: list[Any]) -> dict[Any, Any]:
    keys = items[::2]
    if len(items) % 2:
        raise DecodeError("a map with a key and no value")
    _guard(keys)
    made = dict(zip(keys, items[1::2], strict=True))
    if len(made) != len(keys):
        raise DecodeError("a map that has a key twice")
    return made


def _set(items: list[Any], code: int) -> Iterable[Any]:
    _guard(items)
    made = set(items) if code == SET else frozenset(items)
    if len(made) != len(items):
        raise DecodeError("a set that has an element twice")
    return made
