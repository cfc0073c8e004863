"""Enums beside their values, TypedDicts with other keys, and defaults that need the object."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, Literal, Never, TypeVar, Union, Unpack

import attrs
import pydantic
import pytest
from typing_extensions import ReadOnly, TypedDict

from trio_rpc import method
from trio_rpc.errors import InvalidArguments
from trio_rpc.services.lending import ReferenceArgument
from trio_rpc.services.tables import build_table

T = TypeVar("T")


class Color(enum.Enum):
    R = "r"
    G = "g"


class Shade(enum.Enum):
    RED = "r"


class Maybe(enum.Enum):
    YES = "yes"
    NOT = None


class Level(enum.IntEnum):
    ONE = 1


class Rights(enum.Flag):
    READ = 1


def _signature(annotation: Any, name: str = "x") -> Any:
    async def ask(self, x): ...

    ask.__annotations__[name] = annotation
    return build_table(type("Odd", (), {"ask": method(ask)})())["ask"].signature


def _received(annotation: Any, value: Any) -> Any:
    return _signature(annotation).bind([value])[0][0]


# ── enums beside their values ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "annotation",
    [
        Literal[Color.R, "r"],
        Literal["r", Color.R],
        Literal[Color.R, Shade.RED],
        Literal[1, Level.ONE],
        Union.__getitem__((Literal[Color.R], Literal["r"])),
        Union.__getitem__((Literal[Color.R], Literal[Shade.RED])),
        Color | Literal["r"],
        Color | Shade,
        Union[Color, Shade, int],  # noqa: UP007 - as it is written
        Maybe | None,
        Literal[Maybe.NOT, "a"] | None,
        list[Literal[Color.R, "r"]],
        Callable[[Literal[Color.R, "r"]], Awaitable[None]],
        AsyncIterator[Color | Shade],
    ],
)
def test_an_enum_beside_its_own_value_is_refused_at_registration(annotation):
    with pytest.raises(TypeError, match=r"ask: .* both travel as .*: write one of them"):
        _signature(annotation)
    if "Async" not in repr(annotation) and "Callable" not in repr(annotation):
        with pytest.raises(TypeError, match=r"ask: .* its result .* both travel as"):
            _signature(annotation, "return")


@pytest.mark.parametrize(
    ("annotation", "value", "received"),
    [
        (Literal[Color.R, "g"], "r", Color.R),
        (Literal[Color.R, "g"], "g", "g"),
        (Literal[1, True], 1, 1),
        (Literal[1, True], True, True),
        (Color | Literal["x"], "x", "x"),
        (Color | Literal[Color.R], "r", Color.R),
        (Color | str, "r", "r"),
        (Level | int, 1, 1),
        (int | Level, 1, 1),
        (Rights | int, 1, 1),
        (Level | str, 1, Level.ONE),
    ],
)
def test_an_enum_beside_other_values_is_accepted(annotation, value, received):
    assert _received(annotation, value) is received


# ── TypedDicts with other keys ───────────────────────────────────────────────────────────────


class Scores(TypedDict, extra_items=set[int]):
    name: str


class Ranked(Scores):
    rank: int


class Of(TypedDict, Generic[T], extra_items=ReadOnly[T]):
    name: str


class OfSets(Of[set[int]]):
    pass


class Closed(TypedDict, closed=True):
    name: str


class Nothing(TypedDict, extra_items=Never):
    name: str


class Quoted(TypedDict, extra_items="Closed"):
    name: str


class Sinks(TypedDict, extra_items=Callable[[int], Awaitable[None]]):
    name: str


@pytest.mark.parametrize(
    ("annotation", "value", "received"),
    [
        (Scores, {"name": "n", "a": [1]}, {"name": "n", "a": {1}}),
        (Scores, {"name": "n"}, {"name": "n"}),
        (Ranked, {"name": "n", "rank": 1, "a": [1]}, {"name": "n", "rank": 1, "a": {1}}),
        (Of[set[int]], {"name": "n", "a": [1]}, {"name": "n", "a": {1}}),
        (OfSets, {"name": "n", "a": [1]}, {"name": "n", "a": {1}}),
        (list[Scores], [{"name": "n", "a": [1]}], [{"name": "n", "a": {1}}]),
        (Closed, {"name": "n"}, {"name": "n"}),
        (Nothing, {"name": "n"}, {"name": "n"}),
        (Quoted, {"name": "n", "a": {"name": "m"}}, {"name": "n", "a": {"name": "m"}}),
    ],
)
def test_the_other_keys_of_a_typed_dict_arrive(annotation, value, received):
    assert _received(annotation, value) == received


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (Scores, {"name": "n", "a": ["x"]}, "Expected `int`, got `str`"),
        (Of[int], {"name": "n", "a": "x"}, "Expected `int`, got `str`"),
        (Closed, {"name": "n", "a": 1}, "unknown field `a`"),
        (Nothing, {"name": "n", "a": 1}, "Expected no value"),
        (Quoted, {"name": "n", "a": {"name": "m", "b": 1}}, "unknown field `b`"),
    ],
)
def test_other_keys_that_do_not_fit_are_refused(annotation, value, text):
    with pytest.raises(InvalidArguments, match=text):
        _received(annotation, value)


def test_keyword_arguments_may_have_the_other_keys_of_a_typed_dict():
    async def ask(self, **scores: Unpack[Scores]): ...

    signature = build_table(type("Odd", (), {"ask": method(ask)})())["ask"].signature
    assert signature.bind([], {"name": "n", "a": [1]})[1] == {"name": "n", "a": {1}}


def test_the_other_keys_of_a_typed_dict_may_lend_functions():
    prepare = _signature(Sinks).prepare()
    args, _ = prepare([{"name": "n", "a": print}], {})
    assert type(args[0]["a"]) is ReferenceArgument


# ── defaults that need the object, and models that contain themselves ────────────────────────


@attrs.define
class Box:
    width: int
    depth: int = attrs.Factory(lambda self: self.width, takes_self=True)
    marks: set[int] = attrs.field()

    @marks.default
    def _marks(self) -> set[int]:
        return {self.width}


@pytest.mark.parametrize(
    ("value", "received"),
    [
        ({"width": 1}, Box(1, 1, {1})),
        ({"width": 1, "depth": 2, "marks": [3]}, Box(1, 2, {3})),
    ],
)
def test_a_default_that_needs_the_object_is_made_by_its_class(value, received):
    assert _received(Box, value) == received
    assert _received(list[Box] | None, [value]) == [received]


class Node(pydantic.BaseModel, Generic[T]):
    value: T
    nodes: list[Node[T]] = []


def test_a_generic_model_that_contains_itself_is_refused_with_an_error_of_this_library():
    with pytest.raises(
        TypeError, match=r"ask: .* parameter 'x' .*'nodes' of Node.* contains itself.*: write a "
    ):
        _signature(Node[int])
