"""The structured values that are echoed, the same for all adapters.

An adapter whose library sends no dataclasses converts them, at both ends, as its users must: the
work begins and ends with the value that an application holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PAIR", "Order", "Quote", "dicts", "order", "orders", "plain"]


@dataclass
class Quote:
    """A small dataclass, with the fields of `PAIR`."""

    symbol: str
    price: float


@dataclass
class Order:
    """A dataclass of 10 fields."""

    number: int
    symbol: str
    side: str
    quantity: int
    price: float
    is_open: bool
    account: str
    filled: int
    average: float
    note: str | None


PAIR = {"symbol": "BTC", "price": 61234.5}


def order(number: int) -> Order:
    """Return one of many different orders."""
    return Order(
        number=number,
        symbol=f"SYM{number % 50}",
        side="sell" if number % 2 else "buy",
        quantity=number * 10,
        price=100 + number / 8,
        is_open=number % 3 == 0,
        account=f"account-{number % 7}",
        filled=number * 3,
        average=99.5 + number / 16,
        note=None if number % 4 else "at the close",
    )


def orders(count: int) -> list[Order]:
    """Return that many dataclasses of 10 fields."""
    return [order(number) for number in range(count)]


def plain(order: Order | Quote) -> dict[str, Any]:
    """Return a dataclass as a dict, which is faster than `dataclasses.asdict`."""
    return dict(vars(order))


def dicts(count: int) -> list[dict[str, Any]]:
    """Return that many dicts with the values of `orders`."""
    return [plain(one) for one in orders(count)]
