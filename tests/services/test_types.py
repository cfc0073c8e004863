"""A value arrives equal and of the same type if both ends annotate its type.

Values that do not fit the annotation are refused.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import fractions
import inspect
import io
import ipaddress
import os
import pathlib
import re
import sys
import typing
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from dataclasses import InitVar, dataclass, field
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    Self,
    TypedDict,
    TypeVar,
    TypeVarTuple,
    Unpack,
)

import attrs
import msgspec
import pydantic
import pytest
import trio
import typing_extensions as te

import trio_rpc
from trio_rpc.gateway.json_values import Form
from trio_rpc.services.annotations import Names
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import WireRead, convert_to, make_reader
from trio_rpc.testing import open_session_pair

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Number = TypeVar("Number", int, str)
Bound = TypeVar("Bound", bound="Where")
Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Nested = list["Nested"] | pathlib.PurePosixPath
UserPath = NewType("UserPath", pathlib.Path)


class Side(enum.Enum):
    BUY = "buy"
    SELL = "sell"


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


class Marks(enum.Flag):
    OLD = enum.auto()
    NEW = enum.auto()


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"
    THREE = (3, (3, 3))
    FOUR = b"4"
    HALF = 0.5
    NOTHING = None
    TIME = dt.timedelta(1)


class Celsius(float):
    pass


class Name(str):
    __slots__ = ()


class Tags(list):
    pass


class Span(tuple):  # noqa: SLOT001
    pass


class Fixed(te.TypedDict):
    path: te.ReadOnly[pathlib.Path]
    more: te.ReadOnly[te.NotRequired[Side]]


@dataclass
class Where:
    path: pathlib.Path
    share: fractions.Fraction = fractions.Fraction(1, 2)
    either: str | bytes = ""
    _private: int = 0


@dataclass
class Node:
    name: str
    children: list[Node] = field(default_factory=list)
    parent: Node | None = None
    path: pathlib.PurePath | None = None


@dataclass
class Chain:
    value: int
    next: Optional[Self] = None  # noqa: UP045


@dataclass
class Scaled:
    value: int
    scale: InitVar[int] = 2
    kind: ClassVar[str] = "scaled"

    def __post_init__(self, scale: int) -> None:
        self.value *= scale


@dataclass
class Counted:
    counts: collections.Counter[str]
    total: int = field(init=False)
    kept: Final[int] = 3  # type: ignore[misc]

    def __post_init__(self) -> None:
        self.total = sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    path: pathlib.Path
    side: Literal[Side.BUY] = Side.BUY


class FrozenModel(pydantic.BaseModel, frozen=True):
    x: int


class FrozenStruct(msgspec.Struct, frozen=True):
    path: pathlib.Path


@attrs.frozen
class FrozenAttrs:
    path: pathlib.Path


@dataclass
class Box(Generic[T]):
    content: T
    more: list[T] = field(default_factory=list)


@dataclass
class PathBox(Box[pathlib.Path]):
    label: str = ""


@dataclass
class InnerPathBox(PathBox):
    pass


@attrs.define
class Attrs:
    path: pathlib.Path
    _hidden: int = 3
    count: int = attrs.field(default=1, kw_only=True)


class Struct(msgspec.Struct, rename="camel"):
    first_path: pathlib.Path
    where: Where | None = None
    unset: int | msgspec.UnsetType = msgspec.UNSET


class Row(msgspec.Struct, array_like=True):
    path: pathlib.Path
    count: int = 0


class Pair(NamedTuple):
    path: pathlib.Path
    right: Side = Side.BUY


class Options(TypedDict, total=False):
    path: Required[pathlib.Path]
    limit: int
    inner: NotRequired[Options]


class Model(pydantic.BaseModel):
    limit: int = pydantic.Field(default=3, ge=0)
    path: pathlib.Path | None = None
    side: Side = Side.BUY
    when: dt.datetime | None = None
    where: Where | None = None
    inner: list[Model] = []

    @pydantic.field_validator("limit")
    @classmethod
    def _check(cls, value: int) -> int:
        if value == 13:
            raise ValueError("not\nthat")
        if value == 14:
            raise LookupError("secret")
        return value


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    order_id: int = pydantic.Field(alias="orderId")
    other: int = pydantic.Field(default=0, validation_alias=pydantic.AliasChoices("o", "other"))
    third: int = pydantic.Field(default=0, serialization_alias="dritte")


class ByName(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=str.upper, populate_by_name=True)
    first: int


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Root(pydantic.RootModel[dict[str, int]]):
    pass


class Site(pydantic.BaseModel):
    url: pydantic.HttpUrl


@pydantic.dataclasses.dataclass
class Strict:
    count: int = pydantic.Field(gt=0)


@dataclass
class HasModel:
    model: Model


NOW = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)
PATH = pathlib.Path("a/b.txt")
HALF = fractions.Fraction(1, 2)

# An annotation, values that fit it, and values that do not fit.
TABLE: list[tuple[Any, list[Any], list[Any]]] = [
    (pathlib.Path, [PATH, pathlib.Path()], [1, b"x", ["a"]]),
    (pathlib.PurePath, [pathlib.PurePath("a")], [1]),
    (pathlib.PurePosixPath, [pathlib.PurePosixPath("/a")], [None]),
    (pathlib.PureWindowsPath, [pathlib.PureWindowsPath("c:\\a")], [1]),
    (trio.Path, [trio.Path("a")], [1]),
    (UserPath, [PATH], [1]),
    (list[pathlib.Path], [[PATH], []], [[1], PATH]),
    (set[pathlib.Path], [{PATH}], [{1}]),
    (dict[pathlib.Path, int], [{PATH: 1}], [{1: 1}]),
    (dict[str, pathlib.Path | None], [{"a": PATH, "b": None}], [{"a": 1}]),
    (pathlib.Path | int, [PATH, 1], [1.5]),
    (fractions.Fraction, [HALF, fractions.Fraction(10**30, 3)], [1, "1/0", "1/-2", "1e999999999", "1", "1/2/3", "x" * 9000]),
    (dict[fractions.Fraction, int], [{HALF: 1}], [{"a": 1}]),
    (ipaddress.IPv4Address, [ipaddress.IPv4Address("127.0.0.1")], ["no", 1]),
    (ipaddress.IPv6Network, [ipaddress.IPv6Network("::/8")], ["no"]),
    (collections.deque, [collections.deque([1, "a"])], ["a"]),
    (collections.deque[Side], [collections.deque([Side.BUY])], [["no"], 1]),
    (typing.Deque[int], [collections.deque([1])], [["a"]]),  # noqa: UP006
    (collections.Counter, [collections.Counter("aab")], [{"a": "b"}]),
    (collections.Counter[Side], [collections.Counter([Side.BUY])], [{"no": 1}]),
    (collections.OrderedDict, [collections.OrderedDict(b=1, a=2)], [[1]]),
    (collections.OrderedDict[str, Where], [collections.OrderedDict(b=Where(PATH))], [{"b": 1}]),
    (collections.defaultdict, [collections.defaultdict(int, a=1)], [[1]]),
    (
        collections.defaultdict[str, list[Side]],
        [collections.defaultdict(list, a=[Side.BUY])],
        [{"a": ["x"]}],
    ),
    (Celsius, [Celsius(1.5)], ["a"]),
    (Name, [Name("x")], [1]),
    (Span, [Span((1, 2))], [1]),
    (Fixed, [{"path": PATH}, {"path": PATH, "more": Side.SELL}], [{}, {"path": 1}]),
    (Literal[b"x", "y"], [b"x", "y"], ["x", b"y"]),
    (tuple[int, *tuple[pathlib.Path, ...]], [(1,), (1, PATH, PATH)], [(), (PATH,), (1, 1)]),
    (tuple[*tuple[int, ...], Side], [(Side.BUY,), (1, 2, Side.BUY)], [(), (1, 2), ("a", Side.BUY)]),
    (tuple[Side, *tuple[int, ...], str], [(Side.BUY, "a"), (Side.BUY, 1, "a")], [("buy",), (1, 1, "a")]),
    (tuple[int, *tuple[str, int]], [(1, "a", 2)], [(1, "a"), (1, 2, 3)]),
    (tuple[int, *Ts], [(1,), (1, "a", None)], [("a",)]),
    (Tags, [Tags([1])], [1]),
    (Side, [*Side], ["no"]),
    (Color, [Color.RED], ["no"]),
    (Level, [Level.LOW], [2]),
    (Rights, [Rights.READ, Rights.READ | Rights.WRITE, Rights(0)], ["a", 1.5, True]),
    (Marks, [Marks.OLD | Marks.NEW], [9, "OLD"]),
    (Mixed, [*Mixed], ["no", 7, [1]]),
    (Literal[Side.BUY], [Side.BUY], ["sell", 1]),
    (Literal[Side.BUY, 1, "a", None, True, b"x"], [Side.BUY, 1, "a", None, True, b"x"], ["b", 2, 1.0]),  # noqa: PYI061
    (Literal[1, 0], [1, 0], [True, "1", 1.0]),
    (Optional[Literal[Side.SELL]], [Side.SELL, None], ["buy"]),  # noqa: UP045
    (list[Literal[Side.SELL]], [[Side.SELL]], [["buy"]]),
    (Json, [{"a": [1, {"b": None}], "c": "d", "e": 1.5, "f": True}, [], "x"], [b"x", [b"x"]]),
    (Nested, [pathlib.PurePosixPath("a"), [[pathlib.PurePosixPath("a")]]], [1, [[1]]]),
    (list[Json], [[{"a": {"a": 1}}]], [[{"a": b""}]]),
    (Where, [Where(PATH, HALF, "x"), Where(PATH)], [{"path": 1}, {}, 3]),
    (Node, [Node("a", [Node("b", [], None, pathlib.PurePath(PATH))], Node("c"))], [{"name": "a", "children": [1]}]),
    (Chain, [Chain(1, Chain(2))], [{"value": 1, "next": {"value": "a"}}]),
    (Scaled, [Scaled(5, 3), Scaled(1)], [{"value": "a"}]),
    (Counted, [Counted(collections.Counter("aab"))], [{"counts": {"a": "b"}}]),
    (Frozen, [Frozen(path=PATH)], [{"path": "a", "side": "sell"}]),
    (set[Frozen], [{Frozen(path=PATH)}, set()], [[{"path": 1}], [3]]),
    (frozenset[frozenset[Frozen]], [frozenset({frozenset({Frozen(path=PATH)})})], [[[3]]]),
    (set[tuple[int, Frozen]], [{(1, Frozen(path=PATH))}], [[(1, 2)]]),
    (set[FrozenModel], [{FrozenModel(x=1), FrozenModel(x=2)}], [[{"x": "a"}]]),
    (collections.abc.Set[FrozenStruct], [{FrozenStruct(PATH)}], [[{"path": 1}]]),
    (dict[str, set[FrozenAttrs]], [{"a": {FrozenAttrs(PATH)}}], [{"a": [1]}]),
    (Box[pathlib.Path], [Box(PATH, [PATH])], [{"content": 1}]),
    (Box[Box[Where]], [Box(Box(Where(PATH)))], [{"content": {"content": 1}}]),
    (Box[int], [Box(1, [2])], [{"content": "a"}]),
    (PathBox, [PathBox(PATH, [PATH], "x")], [{"content": 1}]),
    (InnerPathBox, [InnerPathBox(PATH, [PATH], "x")], [{"content": 1}]),
    (Attrs, [Attrs(PATH, 5, count=7)], [{"path": 1}]),
    (Struct, [Struct(PATH, Where(PATH), 3), Struct(PATH)], [{"firstPath": 1}, {}]),
    (Row, [Row(PATH, 3)], [[1], []]),
    (Pair, [Pair(PATH, Side.SELL)], [[1], ["a", "buy", 3], []]),
    (Options, [{"path": PATH}, {"path": PATH, "limit": 1, "inner": {"path": PATH}}], [{}, {"path": 1}]),
    (Where | int | Pair, [Where(PATH), 1, Pair(PATH)], ["x"]),
    (Where | Model, [Where(PATH), Model()], [3]),
    (tuple[pathlib.Path, ...], [(PATH, PATH)], [(1,)]),
    (tuple[Side, pathlib.Path], [(Side.BUY, PATH)], [("buy",)]),
    (Annotated[pathlib.Path, "doc"], [PATH], [1]),
    (Number, [1, "a"], [1.5]),
    (Bound, [Where(PATH)], [3]),
    (Model, [Model(), Model(limit=5, path=PATH, side=Side.SELL, when=NOW, where=Where(PATH), inner=[Model()])], [{"limit": -1}, {"limit": 13}, {"limit": 14}, 3]),
    (list[Model], [[Model(limit=1)]], [[{"limit": "x"}]]),
    (dict[str, Model] | None, [{"a": Model()}, None], [{"a": 3}]),
    (HasModel, [HasModel(Model(limit=7))], [{"model": {"limit": "x"}}]),
    (Aliased, [Aliased(orderId=1, o=2, third=3, more="x")], [{"order_id": 1}]),
    (ByName, [ByName(first=1)], [{"second": 1}]),
    (Page[Where], [Page[Where](items=[Where(PATH)])], [{"items": [1]}]),
    (Page[int], [Page[int](items=[1])], [{"items": ["a"]}]),
    (Root, [Root({"a": 1})], [{"a": "b"}, 3]),
    (Site, [Site(url="https://localhost/x")], [{"url": "no"}]),
    (Strict, [Strict(count=1)], [{"count": 0}]),
    (Strict | str, [Strict(count=1), "a"], [{"count": 0}]),
    (dt.datetime | pathlib.Path, [NOW, PATH], [1]),
    (decimal.Decimal | uuid.UUID | pathlib.Path, [decimal.Decimal("1.5"), uuid.UUID(int=1)], [b""]),
]  # fmt: skip

if sys.version_info >= (3, 12):
    exec(  # noqa: S102 - not valid syntax on 3.11
        "type Alias = pathlib.Path\n"
        "type Recursive = dict[str, Recursive] | list[Recursive] | pathlib.Path\n"
        "type Several[X] = list[X] | X\n"
    )
    TABLE += [
        (Alias, [PATH], [1]),  # noqa: F821
        (Recursive, [PATH, {"a": [PATH, {"b": PATH}]}], [1, {"a": [1]}]),  # noqa: F821
        (Several[pathlib.Path], [PATH, [PATH]], [1]),  # noqa: F821
    ]


def service_of(annotation: Any) -> Any:
    """Make a service that receives and returns values of this annotation in every possible way."""

    class Service:
        @trio_rpc.method
        async def echo(self, value: Any) -> Any:
            self.seen = value
            return value

        @trio_rpc.method
        async def give(self) -> Any:
            return self.raw

        @trio_rpc.stream
        async def items(self) -> AsyncIterator[Any]:
            yield self.raw

        @trio_rpc.method
        async def take(self, values: AsyncIterator[Any]) -> None:
            async for value in values:
                self.seen = value

    marked = vars(Service)
    marked["echo"].__annotations__ = {"value": annotation, "return": annotation}
    marked["give"].__annotations__ = {"return": annotation}
    marked["items"].__annotations__ = {"return": AsyncIterator[annotation]}
    marked["take"].__annotations__ = {"values": AsyncIterator[annotation], "return": None}
    return Service


def same(one: Any, other: Any) -> bool:
    alike = repr(one).replace("<class 'int'>", "None") == repr(other).replace(
        "<class 'int'>", "None"
    )
    return type(one) is type(other) and one == other and alike


def shown(value: Any) -> str:
    return re.sub(r"[^\w]+", "_", str(value))[:40]


GOOD = [(annotation, value) for annotation, good, _ in TABLE for value in good]
BAD = [(annotation, value) for annotation, _, bad in TABLE for value in bad]


@pytest.mark.parametrize(("annotation", "value"), GOOD, ids=shown)
async def test_a_value_that_fits_arrives_as_it_was_sent(annotation, value):
    async def one() -> AsyncIterator[Any]:
        yield value

    cls = service_of(annotation)
    service = cls()
    service.raw = value
    async with open_session_pair(service, None) as (_, session):
        proxy = session.proxy("", cls)
        assert same(await proxy.echo(value), value)
        assert same(service.seen, value)
        assert same(await proxy.echo(value=value), value)
        assert same(await proxy.give(), value)
        async with proxy.items() as items:
            assert same(await items.receive(), value)
        await proxy.take(one())
        assert same(service.seen, value)


@pytest.mark.parametrize(("annotation", "value"), BAD, ids=shown)
async def test_a_value_that_does_not_fit_is_refused_in_one_line(annotation, value):
    cls = service_of(annotation)
    service = cls()
    service.raw = value
    async with open_session_pair(service, None) as (_, session):
        proxy = session.proxy("", cls)
        with pytest.raises(trio_rpc.InvalidArguments) as caught:
            await proxy.echo(value)
        assert caught.value.parameter == "value"
        assert str(caught.value).startswith("echo() parameter 'value': ")
        assert str(caught.value).isprintable()
        assert "secret" not in str(caught.value)
        assert not hasattr(service, "seen")
        with pytest.raises(trio_rpc.DecodeError, match="the result of give"):
            await proxy.give()
        async with proxy.items() as items:
            with pytest.raises(trio_rpc.DecodeError, match="an item of items"):
                await items.receive()


# Values of these types arrive simpler without an annotation, or JSON cannot hold their keys.
UNTYPED_IN_JSON = (
    dict[pathlib.Path, int],
    Mixed,
    Literal[Side.BUY, 1, "a", None, True, b"x"],  # noqa: PYI061
    dict[fractions.Fraction, int],
)


@pytest.mark.parametrize(("annotation", "value"), GOOD, ids=shown)
def test_the_json_of_a_value_that_fits_is_read_back_as_it_was(annotation, value):
    if annotation in UNTYPED_IN_JSON or annotation is Root:
        pytest.skip("JSON cannot hold all of it")
    if value == fractions.Fraction(10**30, 3) or isinstance(value, Celsius):
        pytest.skip("JSON cannot hold all of it")
    form = Form(annotation, adapt(annotation, Names(globals(), {})))
    form.write(value)  # raises if it would not be read back equal


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (Where, {"path": 1}, "Expected `Path`, got `int` - at `$.path`"),
        (
            list[Where],
            [{"path": "a", "share": "1/0"}],
            "Expected `Fraction`, got `str` - at `$[0].share`",
        ),
        (
            Node,
            {"name": "a", "children": [{"name": "b", "path": 3}]},
            "got `int` - at `$.children[0].path`",
        ),
        (Model, {"limit": -1}, "Input should be greater than or equal to 0 - at `$.limit`"),
        (Model, {"limit": 13}, r"Value error, not\nthat - at `$.limit`"),
        (Model, {"limit": 14}, "its own checks raised LookupError"),
        (
            list[HasModel],
            [{"model": {"inner": [{"limit": "x"}], "side": 1}}],
            "(and 1 more) - at `$[0].model.",
        ),
        (Literal[Side.BUY], "sell", "Expected one of Side.BUY, got `'sell'`"),
        (Options, {"limit": 1}, "Object missing required field `path`"),
    ],
)
async def test_the_error_says_where_a_value_does_not_fit(annotation, value, text):
    cls = service_of(annotation)
    async with open_session_pair(cls(), None) as (_, session):
        with pytest.raises(trio_rpc.InvalidArguments) as caught:
            await session.proxy("", cls).echo(value)
    assert str(caught.value).endswith(text) or text in str(caught.value)


class Sentinel(enum.Enum):
    NOTHING = object()


BINARY_FILES = [
    *(io.IOBase, io.RawIOBase, io.BufferedIOBase, io.FileIO, io.BufferedReader),
    *(io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair),
]


class Odd(enum.Enum):
    WHERE = Where(PATH)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (type, "send its name"),
        (type[int], "send its name"),
        (Iterator[int], "write list"),
        (Generator[int, None, None], "AsyncIterator to stream"),
        (Awaitable[int], "write a Callable"),
        (Coroutine[Any, Any, int], "write a Callable"),
        (os.PathLike, "write pathlib.Path"),
        (os.PathLike[str], "write pathlib.Path"),
        (typing.TextIO, "write str"),
        (typing.IO[bytes], "write bytes"),
        (io.TextIOWrapper, "a file cannot be sent: write str"),
        (io.TextIOBase, "a file cannot be sent: write str"),
        *((cls, "a file cannot be sent: write bytes") for cls in BINARY_FILES),
        (ValueError, "raise it"),
        (Exception | None, "raise it"),
        (list[Iterator[int]], "write list"),
        (dict[str, type], "send its name"),
        (Sentinel, "Sentinel.NOTHING is a object"),
        (Odd, "Odd.WHERE is a Where"),
        (pathlib.WindowsPath if os.name == "posix" else pathlib.PosixPath, "cannot"),
    ],
)
def test_annotations_that_no_value_can_fit_are_refused_at_registration(annotation, text):
    async def put(self, value) -> None: ...

    put.__annotations__["value"] = annotation
    cls = type("Service", (), {"put": trio_rpc.method(put)})
    with pytest.raises(TypeError, match=f"put: the annotation of parameter 'value' .*{text}"):
        trio_rpc.services.build_table(cls())


@pytest.mark.parametrize("buffer", [io.BytesIO(b"x"), io.StringIO("x")])
async def test_a_buffer_in_memory_may_be_registered(buffer):
    cls = type(buffer)

    async def put(self, value) -> str:
        return value.read()

    put.__annotations__["value"] = cls
    service = type("Service", (), {"put": trio_rpc.method(put)})()
    registry = trio_rpc.TypeRegistry()
    registry.register(64, cls, cls.getvalue, cls)
    put.__annotations__["return"] = bytes | str
    options = {"registry": registry}
    async with open_session_pair(service, options_a=options, options_b=options) as (_, client):
        assert await client.call("put", buffer) == buffer.getvalue()


class Extra(TypedDict):
    depth: int
    path: NotRequired[pathlib.Path]


class Keywords:
    @trio_rpc.method
    async def search(self, word: str, **options: Unpack[Extra]) -> dict[str, Any]:
        return {"word": word, **options, "path": str(options.get("path"))}

    @trio_rpc.method
    async def several(self, *paths: *tuple[pathlib.Path, ...]) -> list[pathlib.Path]:
        return [*paths]

    @trio_rpc.method
    async def anything(self, *args: *Ts) -> int:
        return len(args)


async def test_keyword_arguments_may_be_annotated_with_a_typed_dict():
    async with open_session_pair(Keywords(), None) as (_, session):
        proxy = session.proxy("", Keywords)
        found = await proxy.search("a", depth=1, path=PATH)
        assert found == {"word": "a", "depth": 1, "path": str(PATH)}
        assert await proxy.search("a", depth=1) == {"word": "a", "depth": 1, "path": "None"}
        with pytest.raises(trio_rpc.InvalidArguments, match="lacks parameter 'depth'"):
            await proxy.search("a")
        with pytest.raises(trio_rpc.InvalidArguments, match="'depth': Expected `int`"):
            await proxy.search("a", depth="x")
        with pytest.raises(trio_rpc.InvalidArguments, match="has no parameter 'width'"):
            await proxy.search("a", depth=1, width=2)
        assert await proxy.several(PATH, PATH) == [PATH, PATH]
        with pytest.raises(trio_rpc.InvalidArguments, match="'paths': Expected `Path`"):
            await proxy.several(1)
        assert await proxy.anything(1, "a") == 2


def with_announced_signature(function: Any) -> Any:
    """Wrap a method in a function that announces the signature of the method."""

    async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await function(self, *args, **kwargs)

    wrapper.__annotations__ = {}
    wrapper.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return wrapper


class Store(Generic[T]):
    @trio_rpc.method
    async def put(self, value: T, more: list[T]) -> dict[str, T]:
        self.seen = [value, *more]
        return {"value": value}

    @trio_rpc.stream
    async def values(self) -> AsyncIterator[T]:
        yield PATH  # type: ignore[misc]

    @trio_rpc.method
    async def ask(self, back: Callable[[T], Awaitable[T]]) -> T:
        return await back(PATH)  # type: ignore[arg-type]


class Sides(Generic[T]):
    @trio_rpc.method
    async def side(self, value: T) -> T:
        return value


class Paths(Store[pathlib.Path], Sides[Side]):
    @trio_rpc.method
    @with_announced_signature
    async def wrapped(self, value: pathlib.Path) -> pathlib.Path:
        return value


class InnerPaths(Paths):
    pass


@pytest.mark.parametrize("cls", [Paths, InnerPaths])
async def test_type_variables_are_resolved_in_subclasses_of_generic_classes(cls):
    seen = []

    async def back(value):
        seen.append(value)
        return value

    service = cls()
    async with open_session_pair(service, None) as (_, session):
        proxy = session.proxy("", cls)
        assert await proxy.put(PATH, [PATH]) == {"value": PATH}
        assert service.seen == [PATH, PATH]
        async with proxy.values() as values:
            assert await values.receive() == PATH
        assert await proxy.ask(back) == PATH
        assert seen == [PATH]
        assert await proxy.side(Side.SELL) is Side.SELL
        with pytest.raises(trio_rpc.InvalidArguments, match="Expected `Path`, got `int`"):
            await proxy.put(1, [])


async def test_the_announced_signature_of_a_wrapper_also_converts_its_result():
    async with open_session_pair(Paths(), None) as (_, session):
        assert await session.proxy("", Paths).wrapped(PATH) == PATH


class Aliases:
    @trio_rpc.method
    async def ask(self, back: Callable[[Json], Awaitable[Json]], value: Json) -> Json:
        return await back(value)

    @trio_rpc.method
    async def ask_any(self, back: Callable[[Nested], Awaitable[Nested]] | None) -> None:
        assert back is not None
        await back([[PATH]])


async def test_a_recursive_alias_may_be_an_argument_of_a_callback():
    seen = []

    async def back(value):
        seen.append(value)
        return value

    async with open_session_pair(Aliases(), None) as (_, session):
        proxy = session.proxy("", Aliases)
        assert await proxy.ask(back, {"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
        await proxy.ask_any(back)
        await proxy.ask_any(lambda *values: back(*values))
    assert seen == [{"a": [1, {"b": None}]}, [[PATH]], [[PATH]]]


# Names are looked up where the class is defined.


async def test_annotations_may_name_classes_local_to_the_function_that_defines_the_service():
    @dataclass
    class Item:
        path: pathlib.Path

    @dataclass
    class Order:
        items: list[Item]
        after: Order | None = None

    class Line(msgspec.Struct):
        item: Item

    class Desk:
        @trio_rpc.method
        async def place(self, order: Order, line: Line | None = None) -> Order:
            return order

        @trio_rpc.stream
        async def orders(self, order: Order) -> AsyncIterator[Order]:
            yield order

        @trio_rpc.method
        async def later(self, order: Order, tell: Callable[[Order], Awaitable[None]]) -> Later:
            return Later(1)

    @dataclass
    class Later:  # found because this function still runs
        number: int

    order = Order([Item(PATH)], Order([]))
    async with open_session_pair(Desk(), None) as (_, session):
        desk = session.proxy("", Desk)
        assert await desk.place(order, Line(Item(PATH))) == order
        async with desk.orders(order) as orders:
            assert await orders.receive() == order
        assert await desk.later(order, trio.sleep) == Later(1)


def factory() -> type:
    @dataclass
    class Local:
        number: int

    class Service:
        @trio_rpc.method
        async def echo(self, value: Local) -> Local:
            return value

    return Service


async def test_local_classes_are_found_after_the_function_has_returned():
    service = factory()
    async with open_session_pair(service(), None) as (_, session):
        assert (await session.proxy("", service).echo({"number": 1})).number == 1


class NoSuchName:
    @trio_rpc.method
    async def put(self, value: list[Missing]) -> None: ...  # noqa: F821


def test_the_error_about_an_unknown_name_in_an_annotation_says_where_it_was_sought():
    with pytest.raises(TypeError) as caught:
        trio_rpc.services.build_table(NoSuchName())
    assert str(caught.value) == (
        "NoSuchName.put: 'Missing' in the annotation 'list[Missing]' of 'value' cannot be resolved at"
        f" run time: neither {__name__} nor the class defines it: define or import it there"
    )


@dataclass
class Unresolved:
    value: Missing  # noqa: F821


class Indirect:
    @trio_rpc.method
    async def put(self, value: list[Unresolved]) -> None: ...


def test_the_error_about_an_unknown_name_in_a_dataclass_names_the_class():
    with pytest.raises(
        TypeError, match="'Missing' in the annotation of 'value' of Unresolved cannot"
    ):
        trio_rpc.services.build_table(Indirect())


def too_late() -> type:
    class Service:
        @trio_rpc.method
        async def put(self, value: Local) -> None: ...

    @dataclass
    class Local:
        number: int

    return Service


def test_the_error_names_a_local_class_that_is_defined_too_late():
    with pytest.raises(
        TypeError, match=r"'Local' .*too_late\(\) had no local variable 'Local' when"
    ):
        trio_rpc.services.build_table(too_late()())


async def test_pydantic_is_not_needed():
    code = "import sys; sys.modules['pydantic'] = None; import trio_rpc, trio_rpc.gateway"
    await trio.run_process([sys.executable, "-c", code])


# ── nested unions ────────────────────────────────────────────────────────────────────────────


@dataclass
class Left:
    inner: Left | Right | None = None
    left: int = 0


@dataclass
class Right:
    inner: Left | Right | None = None
    right: int = 0


def nested_in(levels: int, **fields: Any) -> Any:
    value = fields
    for _ in range(levels):
        value = {"inner": value, **fields}
    return value


@pytest.mark.parametrize(
    "fields", [{}, {"left": "no int"}, {"left": 1, "right": "no int"}], ids=str
)
def test_a_union_inside_itself_takes_time_in_proportion_to_its_levels(fields):
    """Each level is tried as both classes, and would cost twice as much as the one below it."""
    costs = []
    for levels in (10, 20):
        read = WireRead()
        made = make_reader(adapt(Left | Right))(nested_in(levels, **fields), read)
        costs.append(read.most - read.left)
        assert isinstance(made, (Left, Right))
    assert costs[1] < 2.5 * costs[0]


def test_equal_texts_in_a_union_are_converted_separately():
    made = convert_to(["a", "a"], adapt(list[pathlib.Path | int]))
    assert made == [pathlib.Path("a")] * 2
    first, second = convert_to([{"left": 1}, {"left": 1}], adapt(list[Left | Right]))
    assert first is not second


@dataclass
class From:
    path: pathlib.Path


@dataclass
class To:
    path: pathlib.Path


def test_classes_with_the_same_fields_in_a_union_are_refused():
    with pytest.raises(TypeError, match=r"From \| To cannot be told apart by their fields"):
        adapt(From | To)
