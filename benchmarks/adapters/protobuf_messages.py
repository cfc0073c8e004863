"""The benchmark's dataclasses as Protocol Buffers, for gRPC, and their conversion.

The messages are made at run time from a descriptor, as the compiler's output does it, with the
serializer in C. A user who holds dataclasses converts them to messages and back.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from benchmarks.payloads import Order, Quote

__all__ = ["from_orders", "from_quote", "to_orders", "to_quote"]

FIELD = descriptor_pb2.FieldDescriptorProto
KINDS = {
    "int": FIELD.TYPE_INT64,
    "float": FIELD.TYPE_DOUBLE,
    "str": FIELD.TYPE_STRING,
    "bool": FIELD.TYPE_BOOL,
}


def _add_message(file: Any, kind: type) -> None:
    """Add a message with the fields of a dataclass."""
    message = file.message_type.add(name=kind.__name__)
    for number, (name, annotation) in enumerate(kind.__annotations__.items(), 1):
        base, _, optional = annotation.partition(" | ")
        field = message.field.add(
            name=name, number=number, type=KINDS[base], label=FIELD.LABEL_OPTIONAL
        )
        if optional:
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")


def _messages() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    _add_message(file, Quote)
    _add_message(file, Order)
    orders = file.message_type.add(name="Orders")
    orders.field.add(
        name="orders",
        number=1,
        type=FIELD.TYPE_MESSAGE,
        type_name=".bench.Order",
        label=FIELD.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return tuple(  # type: ignore[return-value] # of two
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.{name}"))
        for name in ("Quote", "Orders")
    )


QUOTE, ORDERS = _messages()


def from_quote(quote: Quote) -> bytes:
    data: bytes = QUOTE(symbol=quote.symbol, price=quote.price).SerializeToString()
    return data


def to_quote(data: bytes) -> Quote:
    message = QUOTE.FromString(data)
    return Quote(message.symbol, message.price)


def from_orders(orders: list[Order]) -> bytes:
    message = ORDERS()
    add = message.orders.add
    for order in orders:
        add(**vars(order))  # a None is a field that is not set
    data: bytes = message.SerializeToString()
    return data


def to_orders(data: bytes) -> list[Order]:
    return [
        Order(
            one.number,
            one.symbol,
            one.side,
            one.quantity,
            one.price,
            one.is_open,
            one.account,
            one.filled,
            one.average,
            one.note if one.HasField("note") else None,
        )
        for one in ORDERS.FromString(data).orders
    ]
