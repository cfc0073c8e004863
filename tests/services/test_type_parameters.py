"""Text in annotations may name the type parameters of a class or function: ``class Node[T]``."""

from __future__ import annotations

import sys
import textwrap
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypedDict, TypeVar, TypeVarTuple

import attrs
import msgspec
import pytest

import trio_rpc
from trio_rpc.errors import InvalidArguments
from trio_rpc.gateway import Gateway
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import convert_to
from trio_rpc.services.signatures import Signature
from trio_rpc.testing import open_session_pair

needs_brackets = pytest.mark.skipif(sys.version_info < (3, 12), reason="no type parameters")


@dataclass(frozen=True)
class Order:
    number: int


USED: dict[str, Any] = {
    one.__name__: one for one in (dataclass, field, NamedTuple, TypedDict, Protocol, Order, Generic)
} | {
    "attrs": attrs,
    "msgspec": msgspec,
    "trio_rpc": trio_rpc,
    "Callable": Callable,
    "Awaitable": Awaitable,
    "AsyncIterator": AsyncIterator,
}

WRITTEN = """
    from __future__ import annotations

    @dataclass
    class Node[T]:
        value: T
        inner: list[Node[T]] = field(default_factory=list)

    class Pair[T](NamedTuple):
        first: T
        more: list[T]

    class Fields[T](TypedDict):
        first: T

    @attrs.define
    class Made[T]:
        first: T

    class Struct[T](msgspec.Struct):
        first: T

    class Back[T](Protocol):
        async def __call__(self, one: T, *more: T) -> list[T]: ...

    class Store[T]:
        @trio_rpc.method
        async def put(self, one: T) -> list[T]:
            assert isinstance(one, Order)
            return [one]

        @trio_rpc.method
        async def ask(self, back: Back[T], one: T) -> list[T]:
            return await back(one, one)

        @trio_rpc.method
        async def tell(self, told: Callable[[T], Awaitable[T]], one: T) -> T:
            return await told(one)

        @trio_rpc.stream
        async def values(self, one: T) -> AsyncIterator[T]:
            yield one

        @trio_rpc.method
        async def bound[U: Order](self, one: U, others: list[U]) -> U:
            assert others == [one]
            return one

    class Orders[T](Store[Order]):
        '''Its own type parameter has the same name as that of its base.'''

        @trio_rpc.method
        async def other(self, one: T) -> list[T]:
            return [one]
    """

PLAIN = """
    from __future__ import annotations
    T = TypeVar("T")

    @dataclass
    class Node(Generic[T]):
        value: T
        inner: list[Node[T]] = field(default_factory=list)

    class Store(Generic[T]):
        @trio_rpc.method
        async def put(self, one: T) -> list[T]:
            assert isinstance(one, Order)
            return [one]

    class Back(Protocol[T]):
        async def __call__(self, one: T) -> T: ...

    for one in (Node, Store, Back):
        one.__type_params__ = (T,)
    del T, one
    """
"""The same for older versions of Python: no scope has the name ``T`` afterwards."""


def _made(text: str) -> dict[str, Any]:
    name = f"made_with_parameters_{len(text)}"
    sys.modules[name] = module = types.ModuleType(name)
    names = vars(module)
    names |= {**USED, "TypeVar": TypeVar}
    exec(textwrap.dedent(text), names)  # noqa: S102 - the syntax is new in Python 3.12
    return names


@pytest.fixture(params=[PLAIN, pytest.param(WRITTEN, marks=needs_brackets)])
def names(request):
    return _made(request.param)


@pytest.fixture
def written():
    return _made(WRITTEN)


def test_a_dataclass_that_names_its_type_parameter_in_text(names):
    adapted = adapt(names["Node"][Order])
    node = convert_to({"value": {"number": 1}, "inner": [{"value": {"number": 2}}]}, adapted)
    assert (node.value, node.inner[0].value) == (Order(1), Order(2))
    with pytest.raises(msgspec.ValidationError):
        convert_to({"value": 1}, adapted)


@needs_brackets
@pytest.mark.parametrize(
    ("name", "plain", "path"),
    [
        ("Pair", [{"number": 1}, [{"number": 1}]], "first"),
        ("Made", {"first": {"number": 1}}, "first"),
        ("Struct", {"first": {"number": 1}}, "first"),
        ("Fields", {"first": {"number": 1}}, None),
    ],
)
def test_other_classes_of_fields_that_name_their_type_parameter(written, name, plain, path):
    made = convert_to(plain, adapt(written[name][Order]))
    assert (made["first"] if path is None else getattr(made, path)) == Order(1)


async def test_a_service_that_names_its_type_parameter_in_text(names):
    store = names["Store"][Order]
    async with open_session_pair(store()) as (_, session):
        proxy: Any = session.proxy("", store)
        assert await proxy.put(Order(1)) == [Order(1)]
        with pytest.raises(InvalidArguments):
            await proxy.put("no")


@needs_brackets
async def test_callbacks_streams_and_the_parameters_of_a_method(written):
    store = written["Store"][Order]

    async def back(one, *more):
        assert isinstance(one, Order)
        return [one, *more]

    async with open_session_pair(store()) as (_, session):
        proxy: Any = session.proxy("", store)
        assert await proxy.ask(back, Order(1)) == [Order(1), Order(1)]
        assert await proxy.tell(lambda one: Order(one.number + 1), Order(1)) == Order(2)
        async with proxy.values(Order(1)) as values:
            assert await values.receive() == Order(1)
        assert await proxy.bound(Order(1), [Order(1)]) == Order(1)


@needs_brackets
async def test_type_parameters_of_one_name_in_a_class_and_its_base_are_kept_apart(written):
    orders = written["Orders"][int]
    async with open_session_pair(orders()) as (_, session):
        proxy: Any = session.proxy("", orders)
        assert await proxy.put(Order(1)) == [Order(1)]
        assert await proxy.other(1) == [1]
        with pytest.raises(InvalidArguments):
            await proxy.other("no")


T = TypeVar("T")


@dataclass
class Older(Generic[T]):
    value: T
    text: list[T]


@needs_brackets
def test_the_type_parameter_of_a_service_is_unknown_in_another_class():
    names = _made(WRITTEN)
    put = names["Store"].put
    put.__annotations__ = {"one": Older[int]}
    signature = Signature(put, owner=names["Store"][Order])
    args, _ = signature.bind([{"value": 1, "text": [2]}])
    assert list(args) == [Older(1, [2])]


# ── *args of a TypeVarTuple, and of a tuple of known length ──────────────────────────────────

Ts = TypeVarTuple("Ts")


class Calls(Generic[*Ts]):
    @trio_rpc.method
    async def each(self, *args: *Ts) -> tuple[*Ts]:
        return args


class Counted:
    @trio_rpc.method
    async def fixed(self, *args: *tuple[int, Order]) -> list[str]:
        return [type(one).__name__ for one in args]

    @trio_rpc.method
    async def rest(self, *args: *tuple[int, *tuple[Order, ...]]) -> list[str]:
        return [type(one).__name__ for one in args]


async def test_star_args_take_the_type_arguments_of_a_type_var_tuple():
    calls = Calls[int, Order]
    async with open_session_pair(calls()) as (_, session):
        proxy: Any = session.proxy("", calls)
        assert await proxy.each(1, Order(2)) == (1, Order(2))
        for wrong in ((1,), (1, "no"), (1, Order(2), 3)):
            with pytest.raises(InvalidArguments):
                await proxy.each(*wrong)


async def test_star_args_of_a_tuple_have_the_types_of_its_items():
    services = {"calls": Calls(), "counted": Counted()}
    async with open_session_pair(services) as (_, session):
        anything: Any = session.proxy("calls", Calls)
        assert await anything.each(1, "any", None) == (1, "any", None)
        proxy: Any = session.proxy("counted", Counted)
        assert await proxy.fixed(1, Order(2)) == ["int", "Order"]
        assert await proxy.rest(1, Order(2), Order(3)) == ["int", "Order", "Order"]
        assert await proxy.rest(1) == ["int"]
        for name, wrong in (("fixed", (1,)), ("rest", ()), ("rest", (1, 2))):
            with pytest.raises(InvalidArguments):
                await getattr(proxy, name)(*wrong)


def test_a_gateway_refuses_star_args_that_no_browser_can_pass():
    class Fixed:
        @trio_rpc.method
        async def fixed(self, *args: *tuple[int, Order]) -> None: ...

    with pytest.raises(TypeError, match="'args' requires arguments by position"):
        Gateway(Fixed())
    Gateway(Calls())


def test_star_args_whose_number_is_open_in_the_middle_are_refused():
    def between(self, *args: *tuple[*tuple[int, ...], str]): ...

    with pytest.raises(TypeError, match="write a parameter for each argument"):
        Signature(between)


# ── aliases whose value only a type checker can evaluate ─────────────────────────────────────

ALIASES = """
    type Thing = Missing
    type Things = dict[str, list[Missing]]
    type Tree[T] = list[Tree[T]] | Missing | T
    type Told = Callable[[Missing], Awaitable[None]]

    @dataclass
    class Holder:
        thing: Thing
    """


def _using(annotation: Any, where: str) -> Any:
    async def method(self, value=None): ...

    method.__annotations__[where] = annotation
    return type("Using", (), {"method": trio_rpc.method(method)})()


@needs_brackets
@pytest.mark.parametrize("text", ["Thing", "Things | None", "Tree[int]", "Told", "Holder"])
async def test_an_alias_with_an_unknown_name_is_refused_with_that_name_or_not_needed(text):
    names = _made(ALIASES)
    annotation = eval(text, names)  # noqa: S307
    with pytest.raises(TypeError, match="'Missing' in the annotation") as caught:
        Signature(type(_using(annotation, "value")).method)
    assert "\n" not in str(caught.value)
    async with open_session_pair(_using(annotation, "return")) as (_, session):
        assert await session.call("method") is None
    with pytest.raises(TypeError, match="'Missing' in the annotation"):
        Gateway(_using(annotation, "return"))
