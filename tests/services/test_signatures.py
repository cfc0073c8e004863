"""Arguments and results are checked against annotations."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    LiteralString,
    NamedTuple,
    NewType,
    Optional,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
)

import attrs
import msgspec
import pytest

from trio_rpc.errors import DecodeError, Fate, InvalidArguments
from trio_rpc.services.signatures import Signature

if TYPE_CHECKING:
    from somewhere import Unknown

T = TypeVar("T")
Text = TypeVar("Text", str, bytes)
Whole = TypeVar("Whole", bound=int)
P = ParamSpec("P")
UserId = NewType("UserId", int)
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass
class Null:
    null: int
    array: int | None


@dataclass
class Line:
    name: str
    points: list[Point] = field(default_factory=list)


@dataclass
class Even:
    number: int

    def __post_init__(self):
        if self.number == 13:
            raise LookupError("secret")
        if self.number % 2:
            raise ValueError("must be\neven")


@attrs.define
class Size:
    width: int


class Pair(NamedTuple):
    left: int
    right: str = ""


class Side(enum.Enum):
    BUY = "buy"
    SELL = "sell"


class Level(enum.IntEnum):
    LOW = 1


class Corner(enum.Enum):
    ORIGIN = (0, 0)


class Order(msgspec.Struct, rename="camel", tag="order"):
    order_id: int


class Quit(msgspec.Struct, tag="quit"):
    pass


class Row(msgspec.Struct, array_like=True):
    key: int


class Options(TypedDict):
    depth: int


class Plain:
    pass


class Box(Generic[T]):
    pass


class OnProgress(Protocol):
    async def __call__(self, done: float) -> None: ...


class Sized(Protocol):
    def size(self) -> int: ...


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)


NOW = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)
SOME_ID = uuid.UUID(int=7)


def signature_of(annotation: Any) -> Signature:
    def take(value): ...

    take.__annotations__ = {"value": annotation, "return": annotation}
    return Signature(take, skip_self=False, name="take")


def bound(annotation: Any, value: Any) -> Any:
    """Bind ``value`` by position, by name and as a result, and check that all agree."""
    signature = signature_of(annotation)
    (by_position,), _ = signature.bind([value], None)
    _, by_name = signature.bind([], {"value": value})
    assert by_name == {"value": by_position}
    convert = signature.result_converter()
    result = value if convert is None else convert(value)
    assert result == by_position
    assert type(result) is type(by_position) is type(by_name["value"])
    return by_position


def error_text(annotation: Any, value: Any) -> str:
    signature = signature_of(annotation)
    with pytest.raises(InvalidArguments) as by_position:
        signature.bind([value], None)
    with pytest.raises(InvalidArguments) as by_name:
        signature.bind([], {"value": value})
    convert = signature.result_converter()
    assert convert is not None
    with pytest.raises(DecodeError) as as_result:
        convert(value)
    text = str(by_position.value)
    assert text == str(by_name.value)
    assert by_position.value.parameter == by_name.value.parameter == "value"
    assert by_position.value.fate is Fate.NOT_STARTED
    assert text.startswith("take() parameter 'value': ")
    assert text.isprintable()
    assert len(text) < 600
    what = text.removeprefix("take() parameter 'value': ")
    assert str(as_result.value) == f"the result of take: {what}"
    return what


# A value as the codec decodes it (left), and as a value of the annotation (right).
CONVERTED = [
    (Any, {"a": [1]}, {"a": [1]}),
    (object, 1, 1),
    (T, 1, 1),
    (Whole, 1, 1),
    (Text, b"x", b"x"),
    (int, 2**70, 2**70),
    (float, 1, 1.0),
    (str, "x", "x"),
    (bytes, b"x", b"x"),
    (bytearray, b"x", bytearray(b"x")),
    (bool, True, True),
    (None, None, None),
    (complex, 1 + 2j, 1 + 2j),
    (dt.datetime, NOW, NOW),
    (dt.datetime, "2024-02-29T12:30:00Z", NOW),
    (dt.date, NOW.date(), NOW.date()),
    (dt.time, NOW.time(), NOW.time()),
    (dt.timedelta, dt.timedelta(1), dt.timedelta(1)),
    (decimal.Decimal, decimal.Decimal("1.5"), decimal.Decimal("1.5")),
    (decimal.Decimal, "1.5", decimal.Decimal("1.5")),
    (uuid.UUID, SOME_ID, SOME_ID),
    (uuid.UUID, str(SOME_ID), SOME_ID),
    (UserId, 3, 3),
    (Port, 80, 80),
    (LiteralString, "x", "x"),
    (Literal["a", 1], "a", "a"),
    (Point, {"x": 1}, Point(1)),
    (Point, {"x": 1, "y": 2, "later": 3}, Point(1, 2.0)),
    (Point, Point(1), Point(1)),
    (Line, {"name": "l", "points": [{"x": 1}]}, Line("l", [Point(1)])),
    (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(1, [Tree(2)])),
    (Size, {"width": 1}, Size(1)),
    (Pair, [1, "r"], Pair(1, "r")),
    (Pair, (1,), Pair(1)),
    (Side, "buy", Side.BUY),
    (Side, Side.BUY, Side.BUY),
    (Level, 1, Level.LOW),
    (Corner, (0, 0), Corner.ORIGIN),
    (Corner, [0, 0], Corner.ORIGIN),
    (Corner, Corner.ORIGIN, Corner.ORIGIN),
    (Order, {"type": "order", "orderId": 1}, Order(1)),
    (Order | Quit, {"type": "quit"}, Quit()),
    (Row, [1], Row(1)),
    (Options, {"depth": 1}, {"depth": 1}),
    (list, [1, "a"], [1, "a"]),
    (list[Point], [{"x": 1}], [Point(1)]),
    (dict[int, Point], {1: {"x": 1}}, {1: Point(1)}),
    (dict[str, list[Side]], {"a": ["buy"]}, {"a": [Side.BUY]}),
    (dict[tuple[int, str], int], {(1, "a"): 2}, {(1, "a"): 2}),
    (dict[bytes, int], {b"a": 2}, {b"a": 2}),
    (dict[None, int], {None: 1}, {None: 1}),
    (dict[bool, int], {True: 1}, {True: 1}),
    (dict[float, int], {1.5: 1}, {1.5: 1}),
    (dict[dt.date, int], {NOW.date(): 1}, {NOW.date(): 1}),
    (dict[frozenset[int], int], {frozenset({1}): 1}, {frozenset({1}): 1}),
    (tuple[int, float], [1, 2], (1, 2.0)),
    (tuple[int, ...], (1, 2), (1, 2)),
    (tuple[Corner, ...], [[0, 0]], (Corner.ORIGIN,)),
    (list[int], (1, 2), [1, 2]),
    (set[int], {1}, {1}),
    (set[int], [1], {1}),
    (frozenset[str], {"a"}, frozenset({"a"})),
    (Sequence[int], [1], [1]),
    (Mapping[str, Point], {"a": {"x": 1}}, {"a": Point(1)}),
    (Point | None, None, None),
    (Optional[Point], {"x": 1}, Point(1)),  # noqa: UP045
    (int | str | None, "x", "x"),
    (int | float, 1, 1),
    (Annotated[Corner, "doc"], [0, 0], Corner.ORIGIN),
    # Unions that msgspec itself refuses to convert.
    (str | bytes, b"x", b"x"),
    (str | bytes, "x", "x"),
    (dt.datetime | str, "2024-02-29T12:30:00Z", "2024-02-29T12:30:00Z"),
    (str | dt.datetime, NOW, NOW),
    (complex | int | None, 1j, 1j),
    (complex | int | None, 1, 1),
    (complex | int | None, None, None),
    (set[int] | list[int], {1}, {1}),
    (set[int] | list[int], [1], [1]),
    (list[str | bytes], ["a", b"b"], ["a", b"b"]),
    (dict[str, decimal.Decimal | str], {"a": "1"}, {"a": "1"}),
    (Point | Size, {"width": 1}, Size(1)),
    (Point | Size, {"x": 1, "y": 2.0}, Point(1, 2.0)),
    (Point | Size, {"x": 1}, Point(1)),
    (Size | Point, {"x": 1}, Point(1)),
    (Corner | int, 1, 1),
    (Union[Corner, int], [0, 0], Corner.ORIGIN),  # noqa: UP007
    (int | Any, "x", "x"),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), CONVERTED)
def test_values_are_converted_to_their_annotations(annotation, value, expected):
    converted = bound(annotation, value)
    assert converted == expected
    assert type(converted) is type(expected)


REFUSED = [
    (int, "1", "Expected `int`, got `str`"),
    (int, 1.0, "Expected `int`, got `float`"),
    (int, True, "Expected `int`, got `bool`"),
    (float, "1", "Expected `float`, got `str`"),
    (str, 1, "Expected `str`, got `int`"),
    (str, b"x", "Expected `str`, got `bytes`"),
    (bytes, "aGk=", "Expected `bytes`, got `str`"),
    (bool, 1, "Expected `bool`, got `int`"),
    (None, 1, "Expected `None`, got `int`"),
    (int, None, "Expected `int`, got `None`"),
    (list[Point], [None], "Expected `dict`, got `None` - at `$[0]`"),
    (Null, {"null": 1, "array": []}, "Expected `int | None`, got `list` - at `$.array`"),
    (Literal["null"], "array", "Invalid enum value 'array'"),
    (complex, 1, "Expected `complex`, got `int`"),
    (dt.datetime, 1, "Expected `datetime`, got `int`"),
    (dt.date, NOW, "Expected `date`, got `datetime`"),
    (uuid.UUID, "x", "Invalid UUID"),
    (Port, 0, "Expected `int` >= 1"),
    (Whole, "x", "Expected `int`, got `str`"),
    (Text, 1, "Expected `str | bytes`, got `int`"),
    (Point, {"y": 1}, "Object missing required field `x`"),
    (Point, [1], "Expected `dict`, got `list`"),
    (Line, {"name": "l", "points": [{"x": "1"}]}, "got `str` - at `$.points[0].x`"),
    (dict[int, Point], {"1": {}}, "Expected `int`, got `str`"),
    (dict[str, int], {"a": "b"}, "at `$[...]`"),
    (tuple[int, int], [1], "Expected `list` of length 2, got 1"),
    (set[int], ["a"], "Expected `int`, got `str` - at `$[0]`"),
    (Side, "hold", "Invalid enum value 'hold'"),
    (Side, "\x1b[2J\n" * 10, r"\x1b[2J\n"),
    (Side, "x" * 100_000, "… ("),
    (Corner, [1, 1], "(1, 1) is not a valid Corner"),
    (Corner, [[]], "((),) is not a valid Corner"),
    (list[Corner], [3], "3 is not a valid Corner - at `$[0]`"),
    (Even, {"number": 1}, r"must be\neven"),
    (Even, {"number": 13}, "its own checks raised LookupError"),
    (str | bytes, 1, "Expected `str | bytes`, got `int`"),
    (complex | str, 1, "Expected `complex | str`, got `int`"),
    (list[str | bytes], [1], "Expected `str | bytes`, got `int` - at `$[0]`"),
    (Point | Size, {"z": 1}, "Expected `Point | Size`, got `dict`"),
    (Literal["a"], "b", "Invalid enum value 'b'"),
    (Plain, {}, "Expected `Plain`, got `dict`"),
    (Box[int], 1, "Expected `Box`, got `int`"),
    (AsyncIterator[int], 1, "Expected `AsyncIterator`, got `int`"),
    (Callable[[int], None], 1, "Expected a function, got `int`"),
    (Callable, 1, "Expected a function, got `int`"),
    (OnProgress, 1, "Expected a function, got `int`"),
    (Callable[[], None] | int, "x", "Expected `Callable | int`, got `str`"),
    (list[Callable[[], None]], [1], "Expected a function, got `int` - at `$[0]`"),
    pytest.param(float, 10**400, "", id="too large for a float"),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), REFUSED)
def test_a_value_that_does_not_fit_is_refused_with_an_error_of_one_line(
    annotation, value, expected
):
    assert expected in error_text(annotation, value)


@pytest.mark.parametrize(
    "annotation",
    [
        Callable,
        Callable[..., Any],
        Callable[[int], Awaitable[None]],
        Callable[[], None] | None,
        Callable[[], None] | int,
        OnProgress,
        OnProgress | None,
    ],
)
def test_functions_are_passed_on_unchanged(annotation):
    assert bound(annotation, print) is print


def test_objects_that_cannot_be_converted_are_passed_on_unchanged():
    plain, box = Plain(), Box()
    assert bound(Plain, plain) is plain
    assert bound(Box[int], box) is box
    assert bound(Box[int] | None, box) is box
    assert bound(Sized, plain) is plain  # a Protocol without __call__ is not checked


async def _async_generator():
    yield 1


def test_async_iterators_are_passed_on_unchanged():
    generator = _async_generator()
    assert bound(AsyncIterator[int], generator) is generator


class Shelf:
    """A class whose method names hide names in its annotations."""

    def list(self) -> list[int]: ...

    class Item(NamedTuple):
        number: int

    def put(self, item: Item, also: list[Item] | None = None) -> Shelf: ...


def test_annotations_may_use_names_of_the_class():
    signature = Signature(Shelf.put, owner=Shelf)
    assert signature.bind([[1], [[2]]]) == ((Shelf.Item(1), [Shelf.Item(2)]), {})


def test_a_method_named_like_a_type_does_not_hide_the_type():
    convert = Signature(Shelf.list, owner=Shelf).result_converter()
    assert convert([1]) == [1]
    with pytest.raises(DecodeError, match=r"the result of Shelf.list: .* at `\$\[0\]`"):
        convert(["x"])


def test_local_names_resolve_where_the_function_uses_them():
    @dataclass
    class Local:
        x: int

    def take(value: Local):
        return Local

    assert Signature(take, skip_self=False).bind([{"x": 1}]) == ((Local(1),), {})


def test_an_annotation_that_does_not_resolve_is_refused_at_registration():
    def take(self, ok: int, value: Unknown): ...

    with pytest.raises(
        TypeError,
        match=r"take: 'Unknown' in the annotation 'Unknown' of 'value' .*only under `if TYPE_CHECKING`",
    ):
        Signature(take)


def test_annotations_of_self_and_task_status_need_not_resolve():
    def take(self: Unknown, *, task_status: Unknown = None) -> Unknown: ...

    signature = Signature(take)
    assert signature.bind([]) == ([], {})
    with pytest.raises(TypeError, match="cannot be resolved"):
        signature.result_converter()


@dataclass
class Twin:
    x: int
    y: float = 0.0


@dataclass
class Unlike:
    either: Point | Twin


@pytest.mark.parametrize("annotation", [Point | Twin, Unlike, list[Unlike], 3, dict[str, 3]])
def test_annotations_that_cannot_be_checked_are_refused_at_registration(annotation):
    with pytest.raises(TypeError, match="take: the annotation of parameter 'value' cannot be"):
        signature_of(annotation)


def method(self, a: int, b: str = "b", *, c: float = 0.5) -> None: ...


def test_defaults_are_left_to_the_function():
    signature = Signature(method)
    assert signature.bind([1]) == ([1], {})
    assert signature.bind([1, "x"]) == ([1, "x"], {})
    assert signature.bind([1], {"c": 1}) == ([1], {"c": 1.0})
    assert signature.bind([], {"b": "x", "a": 1}) == ([], {"b": "x", "a": 1})


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        (
            [1, 2],
            {},
            "ask() takes at most 1 positional argument, but was given 2; give 'c' by name",
        ),
        ([1], {}, "ask() lacks parameter 'c', which has to be given by name"),
        (
            [],
            {"a": 1, "c": 1},
            "ask() has no parameter 'a' that can be given by name, only by position",
        ),
    ],
)
def test_an_error_about_an_argument_says_how_it_has_to_be_given(args, kwargs, text):
    def ask(a: int, /, *, c: int) -> None: ...

    with pytest.raises(InvalidArguments) as caught:
        Signature(ask, skip_self=False, name="ask").bind(args, kwargs)
    assert str(caught.value) == text


def test_an_error_about_arguments_by_name_does_not_say_to_give_them_by_name():
    def ask(*, c: int) -> None: ...

    with pytest.raises(InvalidArguments) as caught:
        Signature(ask, skip_self=False, name="ask").bind_names({}, lambda value, _: value)
    assert str(caught.value) == "ask() lacks parameter 'c'"


@pytest.mark.parametrize(
    ("most", "text"),
    [
        (0, "method() takes no positional arguments, but was given 3"),
        (1, "method() takes at most 1 positional argument, but was given 3"),
    ],
)
def test_the_error_about_too_many_arguments_uses_singular_and_plural(most, text):
    def none() -> None: ...

    def one(a: int) -> None: ...

    signature = Signature([none, one][most], skip_self=False, name="method")
    with pytest.raises(InvalidArguments) as caught:
        signature.bind([1, 2, 3])
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("args", "kwargs", "parameter", "text"),
    [
        ([], {}, "a", "method() lacks parameter 'a'"),
        ([], {"b": "x"}, "a", "method() lacks parameter 'a'"),
        (
            [1, "x", 1.0],
            {},
            "",
            "method() takes at most 2 positional arguments, but was given 3; give 'c' by name",
        ),
        ([1], {"a": 1}, "a", "method() got parameter 'a' by position and by name"),
        ([1], {"d": 1}, "d", "method() has no parameter 'd'"),
        ([1], {"self": 1}, "self", "method() has no parameter 'self'"),
        ([1], {"c": "1"}, "c", "method() parameter 'c': Expected `float`, got `str`"),
        (["1"], {}, "a", "method() parameter 'a': Expected `int`, got `str`"),
        ([1, 2], {}, "b", "method() parameter 'b': Expected `str`, got `int`"),
        ([1], {"x\n\x1b": 1}, r"x\n\x1b", r"method() has no parameter 'x\n\x1b'"),
    ],
)
def test_invalid_arguments_name_the_parameter(args, kwargs, parameter, text):
    with pytest.raises(InvalidArguments) as caught:
        Signature(method).bind(args, kwargs)
    assert str(caught.value) == text
    assert caught.value.parameter == parameter


def test_a_huge_parameter_name_is_cut():
    with pytest.raises(InvalidArguments) as caught:
        Signature(method).bind([1], {"x" * 2**16: 1})
    assert len(str(caught.value)) < 200


def test_keyword_only_parameters_may_be_required():
    def take(self, a: int, *, b: int): ...

    signature = Signature(take)
    assert signature.bind([1], {"b": 2}) == ([1], {"b": 2})
    with pytest.raises(InvalidArguments, match="lacks parameter 'b'"):
        signature.bind([1])


def test_positional_only_parameters_have_no_name():
    def take(self, a: int, b: int = 0, /, c: int = 0): ...

    signature = Signature(take)
    assert signature.bind([1, 2, 3]) == ([1, 2, 3], {})
    assert signature.bind([1], {"c": 3}) == ([1], {"c": 3})
    with pytest.raises(InvalidArguments, match="has no parameter 'b'"):
        signature.bind([1], {"b": 1})
    with pytest.raises(InvalidArguments, match="lacks parameter 'a'"):
        signature.bind([], {"c": 1})


def test_positional_only_names_are_free_for_keywords():
    def take(self, a: int, /, **others: str): ...

    assert Signature(take).bind([1], {"a": "x"}) == ([1], {"a": "x"})


def test_variable_arguments_are_checked_against_their_annotations():
    def take(self, first: str, *rest: Point, **named: Side): ...

    signature = Signature(take)
    assert signature.bind(["a"]) == ([*"a"], {})
    assert signature.bind(["a", {"x": 1}, {"x": 2}], {"s": "buy"}) == (
        ["a", Point(1), Point(2)],
        {"s": Side.BUY},
    )
    with pytest.raises(InvalidArguments, match="parameter 'rest': Expected `dict`"):
        signature.bind(["a", {"x": 1}, 2])
    with pytest.raises(InvalidArguments, match="parameter 's': Invalid enum value 'x'"):
        signature.bind(["a"], {"s": "x"})


def test_parameters_without_annotations_are_not_checked():
    def take(self, a, b: Any, c=None): ...

    args = [object(), object()]
    assert Signature(take).bind(args)[0] is args
    assert Signature(take).result_converter() is None
    with pytest.raises(InvalidArguments, match="lacks parameter 'b'"):
        Signature(take).bind([1])


def test_plain_scalars_are_passed_on_without_a_copy():
    args = [1, "x"]
    assert Signature(method).bind(args)[0] is args


# Tests of task_status, which the session fills in: it is not an argument.


def test_task_status_is_never_filled_from_the_wire():
    def feed(self, a: int, task_status: Any = None, b: int = 0, **others: Any): ...

    signature = Signature(feed)
    assert signature.takes_task_status
    assert signature.text == "(a: int, b: int = 0, **others: Any)"
    assert signature.bind([1], {"b": 2}) == ([1], {"b": 2})
    with pytest.raises(InvalidArguments, match="at most 1 positional"):
        signature.bind([1, 2])
    with pytest.raises(InvalidArguments, match="has no parameter 'task_status'"):
        signature.bind([1], {"task_status": 2})


def test_task_status_cannot_be_positional_only():
    def feed(self, task_status: Any, /): ...

    with pytest.raises(TypeError, match="positional-only"):
        Signature(feed)


def test_an_override_inherits_the_annotations_it_leaves_out():
    def override(self, a, b: str = "x"): ...

    signature = Signature(override, like=method)
    with pytest.raises(InvalidArguments, match="'a': Expected `int`"):
        signature.bind(["x"])
    assert signature.result_converter()(None) is None


def test_wrapped_functions_keep_their_signature():
    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            return function(*args, **kwargs)

        return wrapper

    with pytest.raises(InvalidArguments, match="'a': Expected `int`"):
        Signature(wrap(method)).bind(["x"])


def test_a_bare_wrapper_takes_anything():
    def wrapper(self, *args: P.args, **kwargs: P.kwargs): ...

    assert Signature(wrapper).bind([1, "x"], {"y": 2}) == ([1, "x"], {"y": 2})


@pytest.mark.parametrize("annotation", [Awaitable[int], Coroutine[Any, Any, int]])
def test_a_plain_def_may_be_annotated_as_returning_an_awaitable(annotation):
    def later(self): ...

    later.__annotations__ = {"return": annotation}
    convert = Signature(later).result_converter()
    assert convert(1) == 1
    with pytest.raises(DecodeError, match="Expected `int`"):
        convert("x")


def test_results_are_converted():
    def get(self) -> dict[int, Line]: ...

    convert = Signature(get).result_converter()
    assert convert({1: {"name": "l"}}) == {1: Line("l")}


def test_a_bound_function_outside_a_class_has_a_signature():
    signature = Signature(lambda a, b=1: None, skip_self=False)
    assert signature.bind([1, 2]) == ([1, 2], {})


def test_annotations_may_use_a_variable_of_the_closure_that_is_assigned_later():
    def service():
        def method(value: int) -> list[int]:
            return [value, later]

        signature = Signature(method, skip_self=False, name="m")
        later = 1
        return signature

    assert service().bind([5], None) == ([5], {})


class Collects:
    def plain(self, **kwargs): ...

    def named_otherwise(me, first, **kwargs): ...  # noqa: N805

    def positional_only(self, /, **kwargs): ...

    @classmethod
    def of_class(cls, **kwargs): ...

    @staticmethod
    def static(**kwargs): ...

    def __call__(self, **kwargs): ...


@functools.wraps(Collects.plain)
def _wrapper(*args, **kwargs):
    return Collects.plain(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "refused"),
    [
        (Collects().plain, {"self"}),
        (Collects().named_otherwise, {"me"}),
        (Collects().positional_only, set()),
        (Collects.of_class, {"cls"}),
        (Collects.static, set()),
        (Collects(), {"self"}),
        (functools.partial(Collects().plain), {"self"}),
        (functools.partial(Collects().named_otherwise, 1), {"me", "first"}),
        (functools.partial(lambda a, b=1, **kwargs: None, 1), {"a"}),
        (functools.partial(lambda a, /, **kwargs: None, 1), set()),
        (functools.partial(_wrapper, Collects()), {"self"}),
    ],
)
def test_a_parameter_that_binding_has_filled_cannot_be_given_by_name(function, refused):
    signature = Signature(function, skip_self=False, name="f")
    for name in ("self", "cls", "me", "a", "first", "other"):
        required = {} if "first" not in signature.text or name == "first" else {"first": 1}
        arguments = {name: 1, **required}
        if name in refused:
            with pytest.raises(InvalidArguments, match=rf"^f\(\) has no parameter '{name}'$"):
                signature.bind([], arguments)
            with pytest.raises(TypeError):
                function(**arguments)
        else:
            signature.bind([], arguments)
            function(**arguments)


def test_a_method_cannot_collect_self():
    with pytest.raises(InvalidArguments, match="has no parameter 'self'") as caught:
        Signature(Collects.plain).bind([], {"self": 1})
    assert caught.value.parameter == "self"
    Signature(Collects.positional_only).bind([], {"self": 1})
