"""Method tables: marked methods can be called, and no others."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import unicodedata

import pytest
import trio

import trio_rpc
from trio_rpc.errors import Fate, InvalidArguments, MethodNotFound
from trio_rpc.services.decorators import Kind, duplex, method, notification, stream
from trio_rpc.services.introspection import describe
from trio_rpc.services.proxies import Proxy
from trio_rpc.services.tables import (
    build_table,
    check_maker,
    missing,
    resolve,
    wrong_kind,
)
from trio_rpc.testing import memory_channel_pair


class Gone(Exception):
    pass


class Market:
    """A service."""

    @method
    async def price(self, symbol: str) -> float:
        """Return the price.

        Of one share.
        """
        return 1.0

    @method(raises=(Gone, KeyError))
    def order(self, symbol: str, count: int = 1) -> str:
        return f"{count} {symbol}"

    @notification
    async def log(self, line: str) -> None: ...

    def close(self): ...


class Empty:
    def price(self): ...


# Several services at one end. Each method is found by its full name.


def test_methods_of_a_mapping_have_full_names():
    """A local service is registered by its name."""
    table = build_table({"market": Market(), "": Market(), "other-1_B": Market()})
    methods = ["price", "order", "log"]
    prefixes = ["market.", "", "other-1_B."]
    assert set(table) == {prefix + name for prefix, name in itertools.product(prefixes, methods)}


def test_a_single_object_is_the_service_without_a_name():
    assert set(build_table(Market())) == {"price", "order", "log"}


def test_without_services_the_table_is_empty():
    assert build_table(None) == {}
    assert build_table({}) == {}


def test_an_entry_holds_all_that_a_call_needs():
    table = build_table({"market": Market()})
    price, order, log = table["market.price"], table["market.order"], table["market.log"]
    assert (price.kind, price.is_async, price.raises) == (Kind.METHOD, True, ())
    assert (order.kind, order.is_async, order.raises) == (Kind.METHOD, False, (Gone, KeyError))
    assert log.kind is Kind.NOTIFICATION
    args, kwargs = order.signature.bind(["BTC"], {"count": 2})
    assert order.function(*args, **kwargs) == "2 BTC"


def test_errors_name_the_method_as_it_was_called():
    table = build_table({"market": Market()})
    with pytest.raises(InvalidArguments, match=r"^market.price\(\) parameter 'symbol': "):
        table["market.price"].signature.bind([1])


def test_an_override_inherits_the_mark_of_the_interface():
    class Live(Market):
        async def price(self, symbol):
            return 2.0

        @method(raises=())
        def order(self, symbol: str, count: int = 1) -> str:
            return "live"

    table = build_table(Live())
    assert table["price"].kind is Kind.METHOD
    assert table["price"].doc.startswith("Return the price.")
    with pytest.raises(InvalidArguments, match="parameter 'symbol'"):
        table["price"].signature.bind([1])
    assert table["order"].raises == ()
    assert table["order"].function("BTC") == "live"


def test_a_service_may_implement_two_interfaces():
    class Admin:
        @method
        def stop(self): ...

    class Both(Market, Admin):
        pass

    assert set(build_table(Both())) == {"price", "order", "log", "stop"}


@pytest.mark.parametrize(
    "attribute",
    [
        property(print),
        functools.cached_property(print),
        functools.singledispatchmethod(print),
        int,
        None,
        3,
    ],
)
def test_an_override_that_is_not_a_method_is_refused(attribute):
    live = type("Live", (Market,), {"price": attribute})
    with pytest.raises(
        TypeError, match=r"Live.price overrides a remote method with a .* write a def"
    ):
        build_table(live())


class Priced:
    def __call__(self, symbol: str) -> float:
        return 3.0


async def _by_count(self, count: int, symbol: str) -> float:
    return float(count)


@pytest.mark.parametrize(
    "attribute",
    [
        staticmethod(lambda symbol: 3.0),
        classmethod(lambda cls, symbol: 3.0),
        functools.partialmethod(_by_count, 3),
        functools.lru_cache(lambda self, symbol: 3.0),
        Priced(),
        lambda *args: 3.0,
    ],
    ids=["static", "class", "partial", "cached", "object", "star"],
)
def test_an_override_is_called_as_python_binds_it(attribute):
    live = type("Live", (Market,), {"price": attribute})
    entry = build_table(live())["price"]
    args, kwargs = entry.signature.bind(["BTC"])
    assert args == ["BTC"]
    made = entry.function(*args, **kwargs)
    if inspect.iscoroutine(made):
        with pytest.raises(StopIteration) as caught:
            made.send(None)
        made = caught.value.value
    assert made == 3.0
    with (
        pytest.raises(InvalidArguments, match="at most 1")
        if attribute.__class__ is not type(lambda: 0)
        else contextlib.nullcontext()
    ):
        entry.signature.bind(["BTC", "ETH"])


@pytest.mark.parametrize("function", [lambda: 3.0, lambda *, symbol: 3.0])
def test_a_method_without_a_parameter_for_self_is_refused(function):
    live = type("Live", (Market,), {"price": function})
    with pytest.raises(
        TypeError, match=r"^price: its signature has no place for self: write \(self"
    ):
        build_table(live())


@pytest.mark.parametrize(
    "wrap",
    [
        staticmethod,
        classmethod,
        property,
        functools.cached_property,
        functools.singledispatchmethod,
    ],
)
def test_a_mark_inside_another_decorator_is_refused(wrap):
    @method
    def price(self): ...

    cls = type("Odd", (), {"price": wrap(price)})
    with pytest.raises(
        TypeError, match=f"Odd.price: a remote method cannot be a {wrap.__name__}: "
    ):
        build_table(cls())


def test_a_partialmethod_of_a_remote_method_is_not_remote():
    class Live(Market):
        bitcoin = functools.partialmethod(Market.price, "BTC")

    assert set(build_table(Live())) == {"price", "order", "log"}


def test_a_marked_cached_method_is_remote():
    class Cached:
        @functools.cache  # noqa: B019
        @method
        def price(self, symbol: str) -> float:
            return 4.0

    entry = build_table(Cached())["price"]
    assert entry.function(*entry.signature.bind(["BTC"])[0]) == 4.0
    with pytest.raises(InvalidArguments, match="'symbol': Expected `str`"):
        entry.signature.bind([1])


def test_a_wrapper_has_the_signature_of_the_wrapped_method():
    def logged(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    class Service:
        @logged
        @method
        async def price(self, symbol: str) -> float: ...

    with pytest.raises(InvalidArguments):
        build_table(Service())["price"].signature.bind([1])


@pytest.mark.parametrize("service", [Empty(), 3, "market", object(), [Market()], print])
def test_objects_without_marked_methods_are_refused(service):
    for services in (service, {"market": service}):
        with pytest.raises(TypeError, match="no methods marked with @method"):
            build_table(services)


def test_a_class_in_place_of_its_instance_is_refused():
    with pytest.raises(TypeError, match="'market' is the class Market: give an instance"):
        build_table({"market": Market})


@pytest.mark.parametrize("name", ["a.b", " ", "a b", "é", "a\n", "a\r\nPUB", "*", ">", 3, None])
def test_a_service_name_must_be_a_plain_identifier(name):
    with pytest.raises(ValueError, match="a service name must consist"):
        build_table({name: Market()})


def test_an_alias_with_an_odd_name_is_refused():
    odd = type("Odd", (Market,), {"a.b": Market.price})
    with pytest.raises(TypeError, match=r"'a\.b' cannot name a remote method"):
        build_table(odd())


def test_the_error_names_a_method_whose_annotation_cannot_be_resolved():
    class Service:
        @method
        def put(self, value: Missing): ...  # noqa: F821

    with pytest.raises(
        TypeError, match=r"Service.put: 'Missing' in the annotation 'Missing' of 'value'"
    ):
        build_table(Service())


# Services per session.


def test_a_function_of_the_session_may_make_the_services():
    session = object()

    class Live(Market):
        def __init__(self, session):
            self.session = session

    assert resolve(Live, session).session is session
    assert resolve(lambda session: {"market": session}, session) == {"market": session}
    assert resolve(lambda session: None, session) is None


def test_given_services_are_used_as_they_are():
    class Callable(Market):
        def __call__(self): ...

    class Mapped(Market, dict):
        pass

    for services in (None, {}, {"a": 1}, Market(), Callable(), Mapped(), 3):
        assert resolve(services, object()) is services
    assert set(build_table(Mapped())) == {"price", "order", "log"}


def test_the_function_of_the_session_must_be_a_plain_def():
    async def services(session): ...

    with pytest.raises(TypeError, match="must be a plain def"):
        resolve(services, object())


# Law 13: only decorated methods can be called.


class Spy(Market):
    """A service that records each attribute lookup."""

    looks: list[str]
    called: list[str]

    def __init__(self):
        vars(self).update(looks=[], called=[])

    def __getattribute__(self, name):
        if name not in ("looks", "called", "__dict__"):
            self.looks.append(name)
        return super().__getattribute__(name)

    def __getattr__(self, name):
        return lambda *args: self.called.append(name)


HOSTILE_NAMES = [
    *dir(object),
    *dir(Market),
    "__class__.__init__.__globals__",
    "__dict__",
    "close",
    "a.b.c",
    "../x",
    "",
    ".",
    "..",
    "price",
    "market.",
    ".price",
    "market..price",
    "market.price.__self__",
    "market.price\0",
    "market.price ",
    "market.PRICE",
    "x" * 2**16,
    "market." + "x" * 2**16,
    "\0",
    "\x1b[2J[red]",
    "café.price",
    unicodedata.normalize("NFD", "café") + ".price",
    "market.\uff50rice",  # folds to "market.price"
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: ascii(name)[:30])
def test_law_13_names_from_the_wire_are_only_keys(name):
    """No attribute or class is looked up by a name from the wire."""
    spy = Spy()
    table = build_table({"market": spy})
    del spy.looks[:]
    for wire_name in (name, f"market.{name}" if name not in ("price", "order", "log") else name):
        assert table.get(wire_name) is None
        error = missing(table, wire_name)
        assert isinstance(error, MethodNotFound)
        assert error.fate is Fate.NOT_STARTED
        assert len(str(error)) < 200
        assert str(error).isprintable()
    assert spy.looks == []
    assert spy.called == []


def test_registration_looks_up_no_attribute_of_the_instance():
    spy = Spy()
    build_table(spy)
    assert set(spy.looks) <= {"__class__"}


def test_the_error_names_an_unknown_service():
    table = build_table({"market": Market(), "": Market()})
    assert str(missing(table, "market.x")) == "there is no method 'market.x'"
    assert str(missing(table, "x")) == "there is no method 'x'"
    assert str(missing(table, "bank.price")) == "there is no service 'bank'"
    assert str(missing({}, "x")) == "there is no method 'x'"


def test_the_error_says_how_a_method_must_be_called():
    table = build_table(Market())
    assert "must be called, not notified" in str(wrong_kind(table["price"]))
    assert "must be notified, not called" in str(wrong_kind(table["log"]))


def test_the_description_is_plain_data():
    assert describe(build_table({"market": Market()})) == [
        {
            "name": "market.log",
            "kind": "notification",
            "signature": "(line: str) -> None",
            "doc": "",
            "raises": [],
        },
        {
            "name": "market.order",
            "kind": "method",
            "signature": "(symbol: str, count: int = 1) -> str",
            "doc": "",
            "raises": ["Gone", "KeyError"],
        },
        {
            "name": "market.price",
            "kind": "method",
            "signature": "(symbol: str) -> float",
            "doc": "Return the price.",
            "raises": [],
        },
    ]


@pytest.mark.parametrize("services", [7, "tcp://127.0.0.1:5000", [Market()], object()])
def test_services_are_an_object_with_methods_or_a_dict_of_them(services):
    with pytest.raises(TypeError, match=f"of type {type(services).__name__}, .*, or a dict of"):
        build_table(services)


def test_a_duplex_whose_first_parameter_is_not_a_channel_is_refused():
    class Chat:
        @duplex
        async def talk(self, room: str) -> None: ...

    with pytest.raises(TypeError, match=r"talk: .* parameter 'room' is not that of a stream"):
        build_table(Chat())


def test_an_annotation_that_cannot_be_hashed_is_refused_with_the_method_that_has_it():
    class Shop:
        @method
        async def numbers(self, wanted: [int]) -> int:
            return 1

    with pytest.raises(TypeError, match=r"numbers: the annotation of parameter 'wanted' cannot be"):
        build_table(Shop())


def test_an_item_annotation_that_cannot_be_hashed_is_not_that_of_a_stream():
    class Talks:
        @duplex
        async def talk(self, channel: [int]) -> None: ...

    class Ticks:
        @stream
        async def ticks(self) -> [int]:
            yield 1

    with pytest.raises(TypeError, match=r"talk: .* parameter 'channel' cannot be checked"):
        build_table(Talks())
    for use in (lambda: build_table(Ticks()), lambda: Proxy(None, "", Ticks).ticks):
        with pytest.raises(TypeError, match=r"ticks: .* its result is not that of a stream"):
            use()


def test_a_result_annotation_that_cannot_be_hashed_is_refused():
    class Shop:
        @method
        async def numbers(self) -> [int]:
            return [1]

    for use in (lambda: build_table(Shop()), lambda: Proxy(None, "", Shop).numbers):
        with pytest.raises(
            TypeError, match="numbers: the annotation of its result cannot be check"
        ):
            use()


def _without_session(): ...


def _with_two(session, name): ...


class _MadeAlone(Market):
    def __init__(self): ...


class _MadeByName(Market):
    def __init__(self, *, session): ...


async def _async(session): ...


def _generator(session):
    yield {}


@pytest.mark.parametrize(
    ("services", "why"),
    [
        (_without_session, "must take the session: too many positional arguments"),
        (_with_two, "must take the session: missing a required argument: 'name'"),
        (functools.partial(_with_two, 1, 2), "must take the session: too many"),
        (Market, "the class Market cannot be made with a session.*: give an instance of it"),
        (_MadeAlone, "the class _MadeAlone cannot be made with a session"),
        (_MadeByName, "the class _MadeByName cannot be made with a session"),
        (_async, "must be a plain def"),
        (functools.partial(_async), "must be a plain def"),
        (_generator, "must be a plain def"),
    ],
)
async def test_a_function_that_can_make_no_services_is_refused_before_there_is_a_session(
    services, why
):
    ours, _theirs = memory_channel_pair()
    with trio.fail_after(10):
        with pytest.raises(TypeError, match=why):
            await trio_rpc.serve(services, "tcp://127.0.0.1:0")
        with pytest.raises(TypeError, match=why):
            await trio_rpc.serve_session(ours, services)


class _MadeWithSession(Market):
    def __init__(self, session): ...


@pytest.mark.parametrize(
    "make",
    [
        _MadeWithSession,
        functools.partial(_with_two, name=1),
        lambda *args: Market(),
        lambda session, other=1: Market(),
        {"market": Market()}.get,  # Python cannot tell how some built-in functions are called
        dict,
    ],
)
def test_a_function_that_may_make_services_is_accepted(make):
    check_maker(make)
