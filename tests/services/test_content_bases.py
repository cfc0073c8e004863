"""A class with fields that is also a dict, a Decimal or the like is not made from its fields.

Its object would lack the other part: it would have lost that, or end the program when it is used.
"""

from __future__ import annotations

import dataclasses
import decimal
import subprocess
import sys
import textwrap
import threading
from abc import ABC
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, Self, TypeVar

import attrs
import pytest

import trio_rpc
from trio_rpc.gateway import Gateway
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import convert_to
from trio_rpc.services.records import content_base
from trio_rpc.testing import open_session_pair

T = TypeVar("T")


@dataclasses.dataclass
class Names(dict[str, str]):
    number: int = 1


@attrs.define(slots=False)
class Price(decimal.Decimal):
    number: int = 1


@dataclasses.dataclass
class PerThread(threading.local):
    number: int = 1


@dataclasses.dataclass
class Label(str):  # noqa: SLOT000 - odd, but legal
    number: int = 1


@dataclasses.dataclass
class Holder:
    inner: Names


@dataclasses.dataclass
class HoldsMany:
    inner: dict[str, list[Price | None]]


class Named(Protocol):
    number: int


class Plain(ABC):  # noqa: B024 - as a mixin may be
    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        return super().__new__(cls)


@dataclasses.dataclass
class Fine(Plain, Named, Generic[T]):
    number: int
    what: T


@pytest.mark.parametrize("cls", [Names, Price, PerThread, Label])
def test_no_value_fits_such_a_class_however_it_is_nested(cls):
    assert content_base(cls) is not None
    for annotation in (cls, list[cls], dict[str, cls], cls | None, tuple[cls, int]):
        adapted = adapt(annotation)
        for value in ({"number": 2}, [{"number": 2}], {"a": {"number": 2}}, [{"number": 2}, 1]):
            with pytest.raises(Exception, match="Expected"):
                convert_to(value, adapted)


@pytest.mark.parametrize("annotation", [Holder, HoldsMany])
def test_such_a_class_in_a_field_accepts_no_fields(annotation):
    for value in ({"inner": {"number": 2}}, {"inner": {"a": [{"number": 2}]}}):
        with pytest.raises(Exception, match="Expected"):
            convert_to(value, adapt(annotation))


def test_a_parameter_of_such_a_class_is_refused_at_registration():
    class Shop:
        @trio_rpc.method
        async def put(self, names: Names) -> None: ...

    text = r"put.*because Names is also a dict, which is not sent: make that a field of it"
    with pytest.raises(TypeError, match=text):
        Gateway(Shop())


async def test_a_result_of_such_a_class_is_an_error_and_the_program_goes_on():
    class Shop:
        @trio_rpc.method
        async def get(self, back: Callable[[Price], Awaitable[object]] | None = None) -> Price:
            return Price("1.5")

    async with open_session_pair(Shop()) as (_, session):
        with pytest.raises(trio_rpc.DecodeError):
            await session.proxy("", Shop).get()


def test_bases_without_content_make_no_difference():
    assert content_base(Fine) is None
    assert convert_to({"number": 1, "what": 2}, adapt(Fine[int])) == Fine(1, 2)


def test_a_peer_cannot_crash_a_program_with_the_fields_of_such_a_class():
    program = """
        import dataclasses, decimal, trio, trio_rpc
        from trio_rpc.testing import open_session_pair

        @dataclasses.dataclass
        class Price(decimal.Decimal):
            number: int = 1

        class Shop:
            @trio_rpc.method
            async def put(self, prices: list[Price]) -> str:
                return decimal.Decimal.__repr__(prices[0])

        async def main():
            async with open_session_pair(Shop()) as (_, session):
                try:
                    print(await session.call("put", [{"number": 2}]))
                except trio_rpc.InvalidArguments as exc:
                    print(type(exc).__name__)

        trio.run(main)
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, "InvalidArguments\n"), done.stderr
