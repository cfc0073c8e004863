"""A Pydantic model arrives as it was sent, whatever its fields are, and without undue cost."""

# ruff: noqa: RUF012 - Pydantic copies such defaults

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import itertools
import pathlib
import typing
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, Self, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from typing_extensions import TypedDict

import trio_rpc
from trio_rpc.gateway.json_values import Form, read_json
from trio_rpc.services import keyed
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import convert_to
from trio_rpc.services.signatures import complaint
from trio_rpc.testing import open_session_pair
from trio_rpc.wire.keys import KeyBuilder

T = TypeVar("T")

Model = pydantic.BaseModel
Config = pydantic.ConfigDict
STRICT = Config(strict=True)


class Side(enum.Enum):
    BUY = "buy"
    SELL = "sell"


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


class Odd(enum.Enum):
    PAIR = (1, (2, 3))


@dataclasses.dataclass
class Line:
    count: Annotated[int, pydantic.Field(gt=0)]
    side: Side = Side.BUY
    ids: set[int] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int


@dataclasses.dataclass
class Scaled:
    value: int
    scale: dataclasses.InitVar[int] = 2

    def __post_init__(self, scale: int) -> None:
        self.value *= scale


@attrs.define
class Attrs:
    path: pathlib.Path


class Struct(msgspec.Struct):
    path: pathlib.Path
    ids: set[int] = msgspec.field(default_factory=set)


class Pair(NamedTuple):
    left: int
    side: Side = Side.BUY


class Options(TypedDict, total=False):
    side: Side
    ids: set[int]


class Strict(Model):
    model_config = STRICT

    side: Side = Side.BUY
    literal: Literal[Side.BUY] = Side.BUY
    rights: Rights = Rights.READ
    odd: Odd = Odd.PAIR
    path: pathlib.Path = pathlib.Path("a")
    numbers: collections.deque[int] = collections.deque()
    when: dt.datetime | None = None
    day: dt.date = dt.date(2026, 1, 2)
    span: dt.timedelta = dt.timedelta(1)
    price: decimal.Decimal = decimal.Decimal("1.50")
    key: uuid.UUID = uuid.UUID(int=1)
    raw: bytes = b"a\xff"
    ids: set[int] = set()
    frozen: frozenset[decimal.Decimal] = frozenset()
    both: tuple[int, Side] = (1, Side.SELL)
    several: tuple[pathlib.Path, ...] = ()
    by_key: dict[int, Side] = {}
    counts: collections.Counter[str] = collections.Counter()
    share: fractions.Fraction = fractions.Fraction(1, 2)
    real: float = 1.5
    text: str = "x"
    line: Line | None = None
    pair: Pair = Pair(1)
    inner: Optional[Strict] = None  # noqa: UP045
    more: list[Strict] = []
    named: dict[str, Strict] = {}


FULL = Strict(
    side=Side.SELL,
    rights=Rights.READ | Rights.WRITE,
    numbers=collections.deque([1, 2]),
    when=dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    ids={1, 2},
    frozen=frozenset({decimal.Decimal("1.5")}),
    several=(pathlib.Path("b"),),
    by_key={1: Side.SELL},
    counts=collections.Counter("aab"),
    line=Line(1, Side.SELL, {3}),
    inner=Strict(side=Side.SELL),
    more=[Strict(), Strict(ids={5})],
    named={"a": Strict(price=decimal.Decimal(3))},
)


class Lax(Model):
    lines: list[Line] = []

    options: Options = {}
    ids: set[int] = set()
    me: Optional[Self] = None  # noqa: UP045
    point: Point = Point(1)
    odd: Odd = Odd.PAIR
    share: fractions.Fraction = fractions.Fraction(1, 3)
    either: int | str | None = None
    keyed: dict[Point, int] = {}


class Foreign(Model):
    model_config = Config(arbitrary_types_allowed=True)

    struct: Struct
    attrs: Attrs
    scaled: Scaled = Scaled(3)


class Cat(Model):
    kind: Literal["cat"] = "cat"
    name: str = "Tom"
    ids: set[int] = set()


class Dog(Model):
    kind: Literal["dog"] = "dog"
    name: str = "Rex"
    ids: set[int] = set()


class Home(Model):
    pet: Cat | Dog = pydantic.Field(discriminator="kind")
    others: list[Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]] = []
    plain: Cat | Dog | None = None


def tag_of(value: Any) -> str:
    return "many" if (value.get("n") if isinstance(value, dict) else value.n) > 1 else "one"


class One(Model):
    n: int
    ids: set[int] = set()


class Many(Model):
    n: int
    ids: set[int] = set()


class Tagged(Model):
    each: Annotated[
        Annotated[One, pydantic.Tag("one")] | Annotated[Many, pydantic.Tag("many")],
        pydantic.Discriminator(tag_of),
    ]
    more: list[
        Annotated[
            Annotated[One, pydantic.Tag("one")] | Annotated[Many, pydantic.Tag("many")],
            pydantic.Discriminator(tag_of),
        ]
    ] = []


class Number(Model):
    value: int


class Text(Model):
    value: str


class Smart(Model):
    """A model with a union that only Pydantic can resolve."""

    either: Number | Text


class Page(Model, Generic[T]):
    items: list[T]
    first: T | None = None


class Book(Page[pathlib.Path]):
    title: str = ""


class Ids(pydantic.RootModel[set[int]]):
    pass


class StrictIds(pydantic.RootModel[dict[Side, list[Side]]]):
    model_config = STRICT


class HasRoot(Model):
    ids: Ids
    by_side: StrictIds = StrictIds({})


class Alias(Model):
    model_config = STRICT

    first: Side = pydantic.Field(alias="firstSide")
    second: Side = pydantic.Field(validation_alias=pydantic.AliasChoices("zwei", "second"))
    third: Side = pydantic.Field(default=Side.BUY, serialization_alias="dritte")
    fourth: Side = pydantic.Field(
        validation_alias=pydantic.AliasChoices(pydantic.AliasPath("a", "b"), "vier")
    )


class ByName(Model):
    model_config = Config(strict=True, alias_generator=str.upper, populate_by_name=True)

    side: Side


class Forbid(Model):
    model_config = Config(extra="forbid", frozen=True, strict=True)

    side: Side = Side.BUY

    @pydantic.computed_field
    @property
    def shown(self) -> str:
        return self.side.value


class Allow(Model):
    model_config = Config(extra="allow")
    __pydantic_extra__: dict[str, set[int]]


class Made(Model):
    key: uuid.UUID = pydantic.Field(default_factory=uuid.uuid4)
    ids: list[int] = pydantic.Field(default_factory=list)


class Checked(Model):
    words: list[str]
    ids: set[int] = set()
    inner: Cat | None = None
    start: int = 0
    end: int = 9

    @pydantic.field_validator("words", "ids", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @pydantic.field_validator("inner", mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        return {"name": value["old"]} if isinstance(value, dict) and "old" in value else value

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end < self.start:
            raise ValueError("ends before it starts")
        return self


class Renamed(Model):
    now: Side

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_old(cls, data: Any) -> Any:
        return {"now": data["old"]} if isinstance(data, dict) and "old" in data else data


class Hidden(Model):
    name: str
    note: str = pydantic.Field(default="", exclude=True)


@pydantic.dataclasses.dataclass(config=STRICT)
class StrictData:
    side: Side
    ids: set[int] = dataclasses.field(default_factory=set)
    total: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = len(self.ids)


@pydantic.dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrozenData:
    path: pathlib.Path
    ids: frozenset[int] = frozenset()


@pydantic.dataclasses.dataclass
class GenericData(Generic[T]):
    item: T
    ids: set[int] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class HoldsModel:
    strict: Strict
    cats: list[Cat] = dataclasses.field(default_factory=list)


class StructWithModel(msgspec.Struct):
    strict: Strict


class PairWithModel(NamedTuple):
    strict: Strict
    cat: Cat | None = None


class DictWithModel(TypedDict):
    strict: Strict


class Tree(Model):
    value: int
    children: list[Tree] = []
    parent: Tree | None = None
    ids: set[int] = set()


class Network(Model):
    model_config = STRICT

    url: pydantic.HttpUrl
    any: pydantic.AnyUrl = pydantic.AnyUrl("ftp://a/b")
    small: pydantic.PositiveInt = 1
    when: pydantic.AwareDatetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    size: pydantic.ByteSize = pydantic.ByteSize(3)
    path: pydantic.NewPath = pathlib.Path("/no-such-path")


class Holiday(Model):
    model_config = STRICT

    days: list[pydantic.PastDate]


class Late(Model):
    model_config = Config(defer_build=True, strict=True)

    later: Optional[Later] = None  # noqa: UP045


class Later(Model):
    side: Side


SAME = [
    (Strict, [Strict(), FULL]),
    (list[Strict], [[FULL]]),
    (dict[str, Strict], [{"a": FULL}]),
    (Optional[Strict], [None, FULL]),  # noqa: UP045
    (Strict | int, [1, FULL]),
    (Annotated[Strict, "doc"], [FULL]),
    (tuple[Strict, int], [(FULL, 1)]),
    (collections.deque[Strict], [collections.deque([FULL])]),
    (Lax, [Lax(), Lax(lines=[Line(3, ids={1})], options={"side": Side.SELL, "ids": {4}}, ids={1}, me=Lax(), either="3")]),
    (Foreign, [Foreign(struct=Struct(pathlib.Path("a"), {1}), attrs=Attrs(pathlib.Path("b")))]),
    (Home, [Home(pet=Dog(), others=[Cat(), Dog(ids={1})], plain=Dog())]),
    (Cat | Dog, [Cat(), Dog(ids={2})]),
    (list[Cat | Dog], [[Cat(), Dog()]]),
    (Tagged, [Tagged(each=Many(n=2, ids={1}), more=[One(n=1), Many(n=5)])]),
    (Smart, [Smart(either=Number(value=1)), Smart(either=Text(value="1"))]),
    (Page[Strict], [Page[Strict](items=[FULL], first=FULL)]),
    (Page[Page[Side]], [Page[Page[Side]](items=[Page[Side](items=[Side.SELL])])]),
    (Book, [Book(items=[pathlib.Path("a")], title="x")]),
    (Ids, [Ids({1, 2})]),
    (StrictIds, [StrictIds({Side.BUY: [Side.SELL]})]),
    (HasRoot, [HasRoot(ids=Ids({1}), by_side=StrictIds({Side.SELL: []}))]),
    (Alias, [Alias(firstSide=Side.SELL, zwei=Side.SELL, third=Side.SELL, vier=Side.SELL)]),
    (ByName, [ByName(side=Side.SELL)]),
    (Forbid, [Forbid(side=Side.SELL)]),
    (Allow, [Allow(a={1, 2}, b=set())]),
    (Made, [Made(ids=[1])]),
    (Checked, [Checked(words=["a"], ids={1}, inner=Cat(name="x"))]),
    (Renamed, [Renamed(now=Side.SELL)]),
    (Hidden, [Hidden(name="a")]),
    (StrictData, [StrictData(Side.SELL, {1, 2})]),
    (FrozenData, [FrozenData(path=pathlib.Path("a"), ids=frozenset({1}))]),
    (GenericData[Side], [GenericData(Side.SELL, {1})]),
    (HoldsModel, [HoldsModel(FULL, [Cat()])]),
    (StructWithModel, [StructWithModel(FULL)]),
    (PairWithModel, [PairWithModel(FULL, Cat())]),
    (DictWithModel, [{"strict": FULL}]),
    (Tree, [Tree(value=1, children=[Tree(value=2, ids={1})], parent=Tree(value=0))]),
    (Network, [Network(url="https://localhost/x")]),
    (pydantic.HttpUrl, [pydantic.HttpUrl("https://localhost/x")]),
    (list[pydantic.AnyUrl | None], [[None, pydantic.AnyUrl("ftp://a/b")]]),
    (pydantic.AwareDatetime, [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]),
    (pydantic.PastDate, [dt.date(2020, 1, 1)]),
    (pydantic.ByteSize, [pydantic.ByteSize(3)]),
    (list[Holiday], [[Holiday(days=[dt.date(2020, 1, 1)])]]),
    (Late, [Late(later=Later(side=Side.SELL))]),
]  # fmt: skip
GOOD = [(annotation, value) for annotation, values in SAME for value in values]


def name_of(value: Any) -> str:
    return str(value)[:30] if isinstance(value, type) or typing.get_origin(value) else ""


def service_of(annotation: Any) -> Any:
    """Make a service that receives and returns values of this annotation in every possible way."""

    class Failed(Exception):
        value: Any

        def __init__(self, value: Any) -> None:
            super().__init__("failed")
            self.value = value

    Failed.__annotations__["value"] = annotation

    class Service:
        failed = Failed

        @trio_rpc.method
        async def echo(self, value: Any) -> Any:
            self.seen = value
            return value

        @trio_rpc.method(raises=(Failed,))
        async def fail(self, value: Any) -> None:
            raise Failed(value)

        @trio_rpc.stream
        async def items(self, value: Any) -> AsyncIterator[Any]:
            yield value

        @trio_rpc.method
        async def take(self, values: AsyncIterator[Any]) -> None:
            async for value in values:
                self.seen = value

        @trio_rpc.method
        async def ask(self, back: Callable[[Any], Awaitable[Any]], value: Any) -> Any:
            return await back(value)

    marked = vars(Service)
    back = Callable[[annotation], Awaitable[annotation]]  # type: ignore[valid-type]
    marked["echo"].__annotations__ = {"value": annotation, "return": annotation}
    marked["fail"].__annotations__ = {"value": annotation, "return": None}
    marked["items"].__annotations__ = {
        "value": annotation,
        "return": AsyncIterator[annotation],  # type: ignore[valid-type]
    }
    marked["take"].__annotations__ = {"values": AsyncIterator[annotation], "return": None}  # type: ignore[valid-type]
    marked["ask"].__annotations__ = {"back": back, "value": annotation, "return": annotation}
    return Service


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other and repr(one) == repr(other)


@pytest.mark.parametrize(("annotation", "value"), GOOD, ids=name_of)
async def test_a_model_arrives_as_it_was_sent_on_every_path(annotation, value):
    async def one() -> AsyncIterator[Any]:
        yield value

    seen = []

    async def back(value):
        seen.append(value)
        return value

    cls = service_of(annotation)
    service = cls()
    async with open_session_pair(service, None) as (_, session):
        proxy = session.proxy("", cls)
        assert same(await proxy.echo(value), value)
        assert same(service.seen, value)
        assert same(await proxy.echo(value=value), value)
        async with proxy.items(value) as items:
            assert same(await items.receive(), value)
        await proxy.take(one())
        assert same(service.seen, value)
        assert same(await proxy.ask(back, value), value)
        assert same(seen.pop(), value)
        with pytest.raises(cls.failed) as caught:
            await proxy.fail(value)
        assert same(caught.value.value, value)


@pytest.mark.parametrize(("annotation", "value"), GOOD, ids=name_of)
def test_a_model_is_read_back_from_json_as_it_was(annotation, value):
    adapted = adapt(annotation)
    written = Form(annotation, adapted).write(value)
    assert same(read_json(written, adapted), value)


# Coercions that Pydantic allows still work.


@pytest.mark.parametrize("read", [convert_to, read_json], ids=["wire", "JSON"])
@pytest.mark.parametrize(
    ("cls", "value", "made"),
    [
        (Checked, {"words": "a,b", "ids": "1,2"}, Checked(words=["a", "b"], ids={1, 2})),
        (Checked, {"words": [], "inner": {"old": "x"}}, Checked(words=[], inner=Cat(name="x"))),
        (Renamed, {"old": "sell"}, Renamed(now=Side.SELL)),
        (Lax, {"either": "5"}, Lax(either="5")),
        (Made, {"key": str(uuid.UUID(int=7)), "ids": ["5"]}, Made(key=uuid.UUID(int=7), ids=[5])),
        (Tree, {"value": "5"}, Tree(value=5)),
        (Tree, {"value": 1, "children": [{"value": "5"}]}, Tree(value=1, children=[Tree(value=5)])),
        (Alias, {"firstSide": "buy", "second": "sell", "a": {"b": Side.BUY}}, None),
    ],
)
def test_coercions_and_validators_work_as_in_pydantic(read, cls, value, made):
    got = read(value, adapt(cls))
    assert got == made if made is not None else got.second is Side.SELL


class Stamped(Model):
    at: dt.datetime
    price: decimal.Decimal = decimal.Decimal(0)
    url: pydantic.HttpUrl | None = None
    secret: pydantic.SecretStr = pydantic.SecretStr("")


def test_json_values_are_coerced_as_in_pydantic():
    made = read_json(
        {"at": 0, "price": 1.5, "url": "https://localhost", "secret": "s"}, adapt(Stamped)
    )
    assert made.at == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert made.price == decimal.Decimal("1.5")
    assert str(made.url) == "https://localhost/"
    assert made.secret.get_secret_value() == "s"


@pytest.mark.parametrize(
    ("cls", "value", "text"),
    [
        (Strict, {"text": 5}, "Input should be a valid string - at `$.text`"),
        (Strict, {"side": "no"}, "at `$.side`"),
        (Strict, {"ids": ["1"]}, "Expected `int`, got `str` - at `$.ids[0]`"),
        (Strict, {"inner": {"ids": [1, "a"]}}, "Expected `int`, got `str` - at `$.inner.ids[1]`"),
        (Strict, {"more": [{}, {"text": 5}]}, "a valid string - at `$.more[1].text`"),
        (Strict, {"line": {"count": 0}}, "greater than 0 - at `$.line.count`"),
        (Lax, {"lines": [{"count": 1}, {"count": 0}]}, "greater than 0 - at `$.lines[1].count`"),
        (Lax, {"me": {"me": {"ids": "x"}}}, "valid set - at `$.me.me.ids`"),
        (Forbid, {"shown": "x"}, "Extra inputs are not permitted - at `$.shown`"),
        (Allow, {"a": ["x"]}, "Expected `int`, got `str` - at `$.a[0]`"),
        (Checked, {"words": [], "start": 10}, "Value error, ends before it starts"),
        (Home, {"pet": {"kind": "cow"}}, "at `$.pet`"),
        (Tagged, {"each": {"n": "x"}}, "at `$.each"),
        (Ids, ["a"], "Expected `int`, got `str` - at `$[0]`"),
        (Tree, {"value": "x", "children": [{"value": "x"}, {"value": 1}]}, "(and 1 more)"),
        (Tree, {"children": [{"value": "x"}], "ids": ["a"]}, "(and 2 more) - at `$.children[0].value`"),
        (Made, {"ids": ["x"] * 2000}, "2000 of its values do not fit"),
    ],
)  # fmt: skip
def test_the_error_says_where_a_value_does_not_fit_its_model(cls, value, text):
    with pytest.raises(msgspec.ValidationError) as caught:
        convert_to(value, adapt(cls))
    assert complaint(caught.value).endswith(text) or text in complaint(caught.value)
    assert complaint(caught.value).isprintable()


async def test_an_excluded_field_is_not_sent():
    cls = service_of(Hidden)
    service = cls()
    async with open_session_pair(service, None) as (_, session):
        assert await session.proxy("", cls).echo(Hidden(name="a", note="p")) == Hidden(name="a")
    assert service.seen == Hidden(name="a")
    assert Form(Hidden, adapt(Hidden)).write(Hidden(name="a", note="p")) == {"name": "a"}


# ── annotations that are refused at registration ─────────────────────────────────────────────


def model_of(annotation: Any, **config: Any) -> Any:
    return pydantic.create_model(
        "Made", __config__=Config(arbitrary_types_allowed=True, **config), field=(annotation, ...)
    )


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (pydantic.ImportString, "'field' of Made cannot be a ImportString: it would import"),
        (pydantic.ImportString[Any], "it would import a module that a peer chooses"),
        (pydantic.Json, "cannot be a Json: .*write the type itself"),
        (pydantic.Json[set[int]], "cannot be a Json"),
        (list[pydantic.Json[int]], "cannot be a Json"),
        (pydantic.Base64Bytes, "cannot be a EncodedBytes: .*write bytes"),
        (pydantic.Base64UrlStr | None, "cannot be a EncodedStr: .*write str"),
        (type[int], "field 'field' of Made: a class cannot be sent: send its name"),
        (typing.Iterator[int], "an iterator cannot be sent"),
        (typing.TextIO, "a file cannot be sent"),
        (Exception, "an exception cannot be sent"),
        (set[list[int]], "the items of a set must have a hash"),
    ],
)
def test_a_field_that_can_never_be_sent_is_refused(annotation, text):
    with pytest.raises(TypeError, match=text):
        adapt(model_of(annotation))
    with pytest.raises(TypeError, match=text):
        adapt(list[model_of(annotation)])


def test_an_import_string_is_also_refused_outside_of_models():
    with pytest.raises(TypeError, match="it would import a module that a peer chooses"):
        adapt(pydantic.ImportString)


def test_a_type_of_pydantic_is_also_checked_outside_of_models():
    with pytest.raises(msgspec.ValidationError, match="should have timezone info"):
        convert_to(dt.datetime(2026, 1, 1), adapt(pydantic.AwareDatetime))  # noqa: DTZ001
    with pytest.raises(msgspec.ValidationError, match="valid URL"):
        convert_to("no", adapt(pydantic.HttpUrl))
    assert read_json("s", adapt(pydantic.SecretStr)).get_secret_value() == "s"


def test_models_that_cannot_be_sent_are_refused():
    class Path(Model):
        side: Side = pydantic.Field(validation_alias=pydantic.AliasPath("a", "b"))

    class Number2(Model):
        value: set[int]

    class Text2(Model):
        value: set[str]

    @pydantic.dataclasses.dataclass
    class WithInitVar:
        value: int
        scale: dataclasses.InitVar[int]

        def __post_init__(self, scale: int) -> None: ...

    with pytest.raises(TypeError, match="'side' of Path is read only from an AliasPath"):
        adapt(Path)
    with pytest.raises(TypeError, match="the InitVar 'scale', which is not sent"):
        adapt(WithInitVar)
    with pytest.raises(TypeError, match=r"Number2 \| Text2 cannot be told apart"):
        adapt(model_of(Number2 | Text2))


# ── chosen hashes ────────────────────────────────────────────────────────────────────────────

MANY = list(range(200))
TEXTS = {str(number): 1 for number in MANY}


class Limited(Model):
    ids: set[int] = pydantic.Field(default=set(), max_length=10_000)
    prices: dict[decimal.Decimal, int] = {}
    listed: list[set[int]] = []
    either: set[int] | str | None = None
    counted: collections.Counter[decimal.Decimal] = collections.Counter()
    line: Line | None = None
    pet: Cat | Dog | None = None
    anything: Any = None
    root: Ids | None = None
    frozen: frozenset[dt.datetime] = frozenset()


@pytest.fixture
def slow(monkeypatch):
    """Make all guarded keys seem slow, so that any key which passes the guard is noticed."""
    spent = itertools.accumulate(itertools.cycle((0.0, 1.0, 0.0, 0.0)))
    monkeypatch.setattr(keyed._KEYS, "builder", KeyBuilder(lambda: next(spent)))


@pytest.mark.parametrize("read", [convert_to, read_json], ids=["wire", "JSON"])
@pytest.mark.parametrize(
    ("cls", "value"),
    [
        (Limited, {"ids": MANY}),
        (Limited, {"ids": [*MANY, "5"]}),
        (Limited, {"prices": TEXTS}),
        (Limited, {"listed": [[], MANY]}),
        (Limited, {"either": MANY}),
        (Limited, {"counted": TEXTS}),
        (Limited, {"line": {"count": 1, "ids": MANY}}),
        (Limited, {"pet": {"kind": "dog", "name": "", "ids": MANY}}),
        (Limited, {"pet": {"kind": "dog", "ids": MANY}}),
        (Limited, {"root": MANY}),
        (Limited, {"frozen": [f"2026-01-01T00:00:{number % 60:02}.{number:06}Z" for number in MANY]}),
        (Lax, {"options": {"ids": MANY}}),
        (Lax, {"me": {"me": {"ids": MANY}}}),
        (Checked, {"words": [], "ids": MANY}),
        (Tagged, {"each": {"n": 2, "ids": MANY}}),
        (Allow, {"other": MANY}),
        (Ids, MANY),
        (StrictData, {"side": "buy", "ids": MANY}),
        (FrozenData, {"path": "a", "ids": MANY}),
        (GenericData[Side], {"item": "buy", "ids": MANY}),
        (Page[Cat], {"items": [{"ids": MANY}]}),
        (HoldsModel, {"strict": {"ids": MANY}}),
        (StructWithModel, {"strict": {"ids": MANY}}),
    ],
)  # fmt: skip
def test_pydantic_never_builds_a_set_or_dict_from_received_values(slow, cls, value, read):
    with pytest.raises(msgspec.ValidationError) as caught:
        read(value, adapt(cls))
    text = complaint(caught.value)
    assert "chosen to take long" in text or "Expected `int`, got `str`" in text


def test_chosen_hashes_in_a_model_are_refused():
    """The clock decides. Pydantic alone would need 15 s."""
    chosen = [number * (2**61 - 1) for number in range(1, 60_001)]
    with pytest.raises(msgspec.ValidationError, match=r"chosen to take long - at `\$\.ids`"):
        convert_to({"ids": chosen}, adapt(Limited))


# ── nesting ──────────────────────────────────────────────────────────────────────────────────

LEVELS = 40
"""Work that doubled at each level would never end."""


class Deep(Model):
    inner: Deep | None = None
    either: Deep | Other | None = None
    side: Side = Side.BUY
    ids: set[int] = set()


class Other(Model):
    either: Deep | Other | None = None
    name: str = ""


@dataclasses.dataclass
class DeepData:
    either: DeepData | OtherData | None = None
    path: pathlib.Path = pathlib.Path("a")


@dataclasses.dataclass
class OtherData:
    either: DeepData | OtherData | None = None
    other: pathlib.Path = pathlib.Path("a")


@attrs.define
class DeepAttrs:
    either: DeepAttrs | DeepData | OtherData | None = None
    third: pathlib.Path = pathlib.Path("a")


def nested(key: str, value: Any) -> Any:
    for _ in range(LEVELS):
        value = {key: value}
    return value


@pytest.mark.timeout(60)
@pytest.mark.parametrize("read", [convert_to, read_json], ids=["wire", "JSON"])
@pytest.mark.parametrize(
    ("annotation", "key", "bottom"),
    [
        (Deep, "inner", {"side": "no"}),
        (Deep, "inner", {"ids": ["x"]}),
        (Deep, "inner", 5),
        (Deep, "either", {"ids": ["x"], "name": 3}),
        (Deep | Other, "either", {"ids": ["x"], "name": 3}),
        (list[Deep | Other], "either", [{"ids": ["x"], "name": 3}]),
        (DeepData, "either", {"path": 1, "other": 1}),
        (DeepData | OtherData, "either", {"path": 1, "other": 1}),
        (DeepData | OtherData, "either", 5),
        (DeepAttrs | DeepData, "either", {"path": 1, "third": 1, "other": 1}),
    ],
)
def test_a_value_that_does_not_fit_deep_inside_is_refused_quickly(annotation, key, bottom, read):
    value = nested(key, bottom)
    with pytest.raises(msgspec.ValidationError):
        read([value] if typing.get_origin(annotation) is list else value, adapt(annotation))


@pytest.mark.timeout(60)
def test_a_value_that_is_coerced_deep_inside_is_accepted_quickly():
    made = convert_to(nested("inner", {"side": Side.SELL}), adapt(Deep))
    for _ in range(LEVELS):
        made = made.inner
    assert made == Deep(side=Side.SELL)


# ── unions of models inside themselves ───────────────────────────────────────────────────────


class One(pydantic.BaseModel):
    inner: One | Two | None = None
    one: int = 0


class Two(pydantic.BaseModel):
    inner: One | Two | None = None
    two: int = 0


class Tagged1(pydantic.BaseModel):
    kind: Literal[1] = 1
    inner: Tagged1 | Tagged2 | None = pydantic.Field(None, discriminator="kind")


class Tagged2(pydantic.BaseModel):
    kind: Literal[2] = 2
    inner: Tagged1 | Tagged2 | None = pydantic.Field(None, discriminator="kind")


class Alike1(pydantic.BaseModel):
    inner: Alike1 | Alike2 | None = None


class Alike2(pydantic.BaseModel):
    inner: Alike1 | Alike2 | None = None


class Seen1(One):
    inner: Seen1 | Two | dict[str, Seen1] | None = None

    @pydantic.field_validator("inner", mode="before")
    @classmethod
    def look(cls, value: Any) -> Any:
        return value


def in_each(levels: int, **fields: Any) -> Any:
    value = fields
    for _ in range(levels):
        value = {"inner": value, **fields}
    return value


@pytest.mark.timeout(60)
@pytest.mark.parametrize("read", [convert_to, read_json], ids=["wire", "JSON"])
def test_a_union_of_models_inside_itself_takes_time_in_proportion_to_its_levels(read):
    """Pydantic alone takes twice as long for each level: 10^11 years for these."""
    made = read(in_each(50, two=1), adapt(One))
    for _ in range(50):
        made = made.inner
        assert isinstance(made, Two)
    with pytest.raises((TypeError, ValueError), match=r"Expected `One . Two . NoneType`"):
        read(in_each(50, one="x", two="x"), adapt(One))
    made = read(in_each(50, kind=2), adapt(Tagged2))
    for _ in range(50):
        made = made.inner
    assert isinstance(made, Tagged2)


@pytest.mark.parametrize("cls", [Alike1, Seen1])
def test_a_union_of_models_inside_itself_that_only_pydantic_can_choose_from_is_refused(cls):
    with pytest.raises(TypeError, match=r"'inner' of .* contains itself.*discriminator="):
        adapt(cls)
