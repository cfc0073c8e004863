"""Annotations of callbacks, started values and items are used to convert values.

This holds however a function is wrapped.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import (
    Any,
    Concatenate,
    NamedTuple,
    ParamSpec,
    Protocol,
    Required,
    TypedDict,
    TypeVar,
    Unpack,
)
from unittest.mock import AsyncMock, MagicMock, Mock

import attrs
import msgspec
import pytest
import trio

import trio_rpc
from trio_rpc import Fate, duplex, method, notification, stream

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Quote:
    bid: float


class Handler(Protocol[T]):
    async def __call__(self, quote: T, *, note: T | None = None) -> T: ...


class Desk:
    @method
    async def ask(self, f: Callable[[Quote], Awaitable[Quote]]) -> str:
        return type(await f(Quote(1.0))).__name__

    @method
    async def ask_if_any(self, f: Callable[[Quote], Awaitable[Quote]] | None = None) -> str:
        return "none" if f is None else type(await f(Quote(1.0))).__name__

    @method
    async def ask_all(self, fs: dict[str, list[Callable[[Quote], Awaitable[Quote]]]]) -> list[str]:
        return [type(await f(Quote(1.0))).__name__ for some in fs.values() for f in some]

    @method
    async def ask_each(self, *fs: Callable[[Quote], Awaitable[Quote]]) -> list[str]:
        return [type(await f(Quote(1.0))).__name__ for f in fs]

    @method
    async def ask_named(self, **fs: Callable[[Quote], Awaitable[Quote]]) -> list[str]:
        return [type(await f(Quote(1.0))).__name__ for f in fs.values()]

    @method
    async def ask_handler(self, f: Handler[Quote]) -> str:
        return type(await f(Quote(1.0), note=Quote(2.0))).__name__

    @method
    async def ask_first(self, f: Callable[Concatenate[Quote, P], Awaitable[Quote]]) -> str:
        return type(await f(Quote(1.0))).__name__

    @method
    async def ask_dots(self, f: Callable[..., Awaitable[Quote]]) -> str:
        return type(await f(Quote(1.0))).__name__

    @method
    async def ask_either(
        self, f: Callable[[Quote], Awaitable[int]] | Callable[[Quote], Awaitable[Quote]]
    ) -> str:
        return type(await f(Quote(1.0))).__name__

    @method
    async def confirm(self, f: Callable[[str], Awaitable[bool]]) -> str:
        try:
            return "yes" if await f("sure?") else "no"
        except trio_rpc.DecodeError as exc:
            return f"{exc}, {exc.fate.name}"

    @method
    async def tell(self, f: Callable[[str], Awaitable[None]]) -> str:
        return repr(await f("x"))

    @method
    async def feed(self, *, task_status: trio.TaskStatus[Quote] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(Quote(7))
        await trio.sleep_forever()

    @method
    async def wrong_feed(
        self, *, task_status: trio.TaskStatus[Quote] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started("no quote")  # type: ignore[arg-type]
        await trio.sleep_forever()

    @method
    async def total(self, quotes: AsyncIterator[Quote] | None) -> list[str]:
        return [] if quotes is None else [type(quote).__name__ async for quote in quotes]


async def _annotated(quote: Quote) -> Quote:
    assert type(quote) is Quote
    return quote


async def _bare(quote):
    assert type(quote) is Quote
    return quote


def _plain(quote):
    assert type(quote) is Quote
    return quote


async def _two(first, quote):
    assert (first, type(quote)) == (1, Quote)
    return quote


async def _only_for_checkers(quote: Unknown) -> Unknown:  # noqa: F821
    assert type(quote) is Quote
    return quote


def _traced(function):
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


def _traced_as(name):
    def decorate(function):
        wrapper = _traced(function)
        wrapper.__name__ = name
        return wrapper

    return decorate


def _wrapped(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Listener:
    async def __call__(self, quote):
        return await _bare(quote)

    async def heard(self, quote):
        return await _bare(quote)

    @classmethod
    async def of_class(cls, quote):
        return await _bare(quote)

    @staticmethod
    async def static(quote):
        return await _bare(quote)

    traced = _traced(_two)
    traced_method = _traced(heard)
    partial = functools.partialmethod(_traced(heard))


class Iterated(Listener):
    """A function that is also an async iterable."""

    def __aiter__(self):
        raise AssertionError("it is used as a function here")


class Twice(Quote):
    """A class used as a function."""


CALLBACKS = {
    "annotated": _annotated,
    "bare": _bare,
    "plain": _plain,
    "lambda": lambda quote: _bare(quote),
    "lambda *": lambda *args: _plain(*args),
    "partial": functools.partial(_bare),
    "partial, one given": functools.partial(_two, 1),
    "partial of a partial": functools.partial(functools.partial(_two, 1)),
    "object": Listener(),
    "bound": Listener().heard,
    "class method": Listener.of_class,
    "static": Listener.static,
    "bound wrapper": Listener().traced_method,
    "bound partial": Listener().partial,
    "wrapper": _traced(_bare),
    "wraps": _wrapped(_annotated),
    "wraps bare": _wrapped(_bare),
    "for checkers": _only_for_checkers,
    "iterated": Iterated(),
    "mock": Mock(side_effect=_plain),
    "magic mock": MagicMock(side_effect=_plain),
    "async mock": AsyncMock(side_effect=_bare),
    "mock of a function": AsyncMock(spec=_bare, side_effect=_bare),
}


@pytest.mark.parametrize("name", CALLBACKS)
async def test_the_values_of_a_callback_are_converted_however_it_is_wrapped(
    session_pair, name, no_time
):
    f = CALLBACKS[name]
    async with session_pair(Desk(), None) as (_, session):
        desk = session.proxy("", Desk)
        assert await desk.ask(f) == "Quote"
        assert await desk.ask_if_any(f) == "Quote"
        assert await desk.ask_first(f) == "Quote"
        assert await desk.ask_each(f, f) == ["Quote"] * 2
        assert await desk.ask_named(a=f) == ["Quote"]
        assert await desk.ask_all({"a": [f], "b": [f, f]}) == ["Quote"] * 3
        async with session.open_scope() as scope:
            assert await scope.proxy("", Desk).ask(f) == "Quote"


async def test_a_callback_may_be_declared_as_a_union_a_protocol_or_with_dots(session_pair, no_time):
    async def note(quote, *, note):
        assert type(quote) is type(note) is Quote
        return note

    async def anything(quote):
        assert quote == {"bid": 1.0}  # it has no annotation
        return quote

    async with session_pair(Desk(), None) as (_, session):
        desk = session.proxy("", Desk)
        assert await desk.ask_handler(note) == "Quote"
        assert await desk.ask_handler(lambda *args, **kwargs: note(*args, **kwargs)) == "Quote"
        assert await desk.ask_dots(anything) == "Quote"
        assert await desk.ask_either(_bare) == "Quote"
        assert await desk.ask_either(lambda _: 3) == "int"
        assert await desk.ask_if_any() == await desk.ask_if_any(None) == "none"


@pytest.mark.parametrize("interface", [Desk, None])
async def test_a_result_that_does_not_fit_is_an_error_of_the_handlers_call(
    session_pair, interface, no_time
):
    async with session_pair(Desk(), None) as (_, session):
        desk = session.proxy("", interface)
        assert await desk.confirm(lambda _: True) == "yes"
        text = await desk.confirm(lambda _: "no")
        assert text == "the result of callback 0 of confirm: Expected `bool`, got `str`, STOPPED"
        assert await desk.tell(lambda text: text) == "None"  # its result is ignored


async def test_arguments_that_do_not_fit_are_refused_at_the_callbacks_end(session_pair, no_time):
    class Odd(Desk):
        async def ask(self, f):
            return await f("no quote")

    async with session_pair(Odd(), None) as (_, session):
        with pytest.raises(trio_rpc.RemoteError, match=r"InvalidArguments.*Expected `dict`"):
            await session.proxy("", Desk).ask(_bare)
        with pytest.raises(trio_rpc.RemoteError, match=r"InvalidArguments.*Expected `dict`"):
            await session.proxy("", Desk).ask(Mock())


async def test_a_started_value_is_converted_to_the_annotation_of_task_status(session_pair, no_time):
    async with session_pair(Desk(), None) as (_, session), trio.open_nursery() as nursery:
        desk = session.proxy("", Desk)
        assert await nursery.start(desk.feed) == Quote(7)
        assert await nursery.start(session.proxy().feed) == {"bid": 7}
        with pytest.raises(
            trio_rpc.DecodeError, match="the started value of wrong_feed: Exp"
        ) as caught:
            await nursery.start(desk.wrong_feed)
        assert caught.value.fate is Fate.STOPPED
        nursery.cancel_scope.cancel()


async def test_items_of_an_optional_stream_are_converted(session_pair, no_time):
    async def quotes():
        yield Quote(1.0)

    async with session_pair(Desk(), None) as (_, session):
        desk = session.proxy("", Desk)
        assert await desk.total(quotes()) == ["Quote"]
        assert await desk.total(None) == []
        with pytest.raises(trio_rpc.InvalidArguments, match="AsyncIterator"):
            await desk.total(quotes)


# ── the parameter decides: a function, a stream or data ──────────────────────────────────────


@dataclass
class Called:
    x: int

    def __call__(self, y: int) -> int:
        return self.x + y

    async def __aiter__(self):
        yield self.x


@attrs.define
class Lived:
    x: int

    async def __aiter__(self):
        yield self.x


class Packed(msgspec.Struct):
    x: int

    async def __aiter__(self):
        yield self.x


class Wants:
    @method
    async def function(self, f: Callable[[int], Awaitable[int]]) -> int:
        return await f(1)

    @method
    async def items(self, items: AsyncIterator[int]) -> list[int]:
        return [item async for item in items]

    @method
    async def data(self, data: Called | None) -> int:
        assert type(data) is Called
        return data.x

    @method
    async def lived(self, data: Lived) -> int:
        assert type(data) is Lived
        return data.x

    @method
    async def packed(self, data: Packed) -> int:
        assert type(data) is Packed
        return data.x

    @method
    async def either(self, one: Called | Callable[[int], Awaitable[int]]) -> str:
        return type(one).__name__


async def test_the_parameter_decides_whether_an_argument_is_a_function_a_stream_or_data(
    session_pair, no_time
):
    async with session_pair(Wants(), None) as (_, session):
        wants = session.proxy("", Wants)
        assert await wants.function(Called(2)) == 3
        assert await wants.function(int) == 1
        assert await wants.items(Called(2)) == [2]
        assert await wants.items(Lived(2)) == [2]
        assert await wants.items(Packed(2)) == [2]
        assert await wants.data(Called(2)) == 2
        assert await wants.lived(Lived(2)) == 2
        assert await wants.packed(Packed(2)) == 2
        assert await wants.either(Called(2)) == "Called"
        assert await wants.either(lambda y: y) == "Callback"


# ── plain functions that return awaitables ───────────────────────────────────────────────────


class Later:
    def __init__(self):
        self.lines = []

    async def _later(self, value):
        await trio.lowlevel.checkpoint()
        return value

    @method
    def twice(self, x: int) -> Awaitable[int]:
        return self._later(2 * x)

    @notification
    def note(self, line: str) -> Awaitable[None]:
        async def write():
            await trio.lowlevel.checkpoint()
            self.lines.append(line)

        return write()

    @stream
    def count(self, to: int) -> AsyncIterator[int]:
        async def numbers():
            for number in range(to):
                yield number

        return self._later(numbers())  # type: ignore[return-value]

    @method
    async def maybe(self, x: int) -> int:
        return x


class Cached(Later):
    maybe = _wrapped(lambda self, x: x or self._later(x))


async def _pass(call, proceed):
    return await proceed()


@pytest.mark.parametrize("filters", [[], [_pass]])
async def test_an_awaitable_that_a_plain_def_returns_is_awaited(session_pair, filters, no_time):
    later = Cached()
    options = {"filters": filters}
    async with session_pair(later, None, options_a=options) as (_, session):
        proxy = session.proxy("", Later)
        assert await proxy.twice(4) == 8
        await proxy.note("x")
        await session.ping()
        async with proxy.count(3) as numbers:
            assert [number async for number in numbers] == [0, 1, 2]
        assert [await proxy.maybe(0), await proxy.maybe(1)] == [0, 1]
    assert later.lines == ["x"]


async def test_a_plain_def_that_returns_an_awaitable_is_cancelled_with_its_caller(
    session_pair, no_time
):
    ended = []

    class Slow:
        @method
        def wait(self) -> Awaitable[None]:
            async def forever():
                try:
                    await trio.sleep_forever()
                finally:
                    ended.append("handler")

            return forever()

    async with session_pair(Slow(), None) as (_, session), trio.open_nursery() as nursery:
        nursery.start_soon(session.call, "wait")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ended == ["handler"]


# ── functions and streams in fields ──────────────────────────────────────────────────────────


@dataclass
class Job:
    on_quote: Callable[[Quote], Awaitable[Quote]]
    quotes: AsyncIterator[Quote] | None = None
    inner: Job | None = None


@attrs.define
class AttrsJob:
    on_quote: Callable[[Quote], Awaitable[Quote]] | None


class Runs:
    @method
    async def run(self, job: Job) -> list[str]:
        got = [type(await job.on_quote(Quote(1.0))).__name__]
        if job.quotes is not None:
            got += [type(quote).__name__ async for quote in job.quotes]
        return got + ([] if job.inner is None else await self.run(job.inner))

    @method
    async def run_attrs(self, jobs: list[AttrsJob]) -> list[str]:
        return [type(await job.on_quote(Quote(1.0))).__name__ for job in jobs if job.on_quote]


async def test_functions_and_streams_in_fields_are_also_converted(session_pair, no_time):
    async def quotes():
        yield Quote(1.0)

    async with session_pair(Runs(), None) as (_, session):
        runs = session.proxy("", Runs)
        inner = Job(_annotated)
        assert await runs.run(Job(_bare, quotes(), inner)) == ["Quote"] * 3
        assert await runs.run_attrs([AttrsJob(_bare), AttrsJob(None)]) == ["Quote"]
        with pytest.raises(trio_rpc.RemoteError, match=r"DecodeError.*callback 0"):
            await runs.run(Job(lambda _: "no quote"))


# ── wrappers of methods, at both ends ────────────────────────────────────────────────────────


class Wrapped:
    @method
    @_traced_as("double")
    async def double(self, x: int) -> int:
        return 2 * x

    @stream
    @_wrapped
    async def count(self, to: int) -> AsyncIterator[Quote]:
        for number in range(to):
            yield Quote(number)

    @duplex
    @_wrapped
    async def echo(self, channel: trio.abc.Channel[Quote], note: str) -> None:
        async for quote in channel:
            assert type(quote) is Quote
            await channel.send(quote)

    @notification
    @_traced_as("note")
    async def note(self, line: str) -> None:
        self.line = line


class Overridden(Wrapped):
    """An override of each kind, without our decorator."""

    double = functools.partialmethod(lambda self, two, x: two * x, 2)

    def count(self, to):
        return super().count(to)

    def echo(self, channel, note):
        return super().echo(channel, note)

    def note(self, line):
        return super().note(line)


@pytest.mark.parametrize("service", [Wrapped, Overridden])
@pytest.mark.parametrize("filters", [[], [_pass]])
async def test_wrappers_and_overrides_of_every_kind_work(session_pair, service, filters, no_time):
    wrapped = service()
    async with session_pair(wrapped, None, options_a={"filters": filters}) as (_, session):
        proxy = session.proxy("", Wrapped)
        assert await proxy.double(4) == 8
        async with proxy.count(2) as numbers:
            assert [number async for number in numbers] == [Quote(0), Quote(1)]
        async with proxy.echo("x") as channel:
            await channel.send(Quote(1))
            assert await channel.receive() == Quote(1)
        await proxy.note("x")
        await session.ping()
        assert wrapped.line == "x"


# ── functions with fewer annotations than the interface ──────────────────────────────────────


class Pair(Protocol):
    async def __call__(self, *args: Quote, **named: Quote) -> None: ...


class Options(TypedDict, total=False):
    best: Required[Quote]


class Unpacked(Protocol):
    async def __call__(self, *args: *tuple[Quote, ...], **named: Unpack[Options]) -> None: ...


class OfQuotes(Handler[Quote], Protocol):
    """A Protocol that fills in the type variable of its base."""


class Tells:
    @method
    async def one(self, f: Callable[[Quote], Awaitable[None]]) -> None:
        await f(Quote(1.0))

    @method
    async def several(self, f: Callable[[list[Quote]], Awaitable[None]]) -> None:
        await f([Quote(1.0)])

    @method
    async def pair(self, f: Pair) -> None:
        await f(Quote(1.0), Quote(1.0), best=Quote(1.0))

    @method
    async def unpacked(self, f: Unpacked) -> None:
        await f(Quote(1.0), Quote(1.0), best=Quote(1.0))

    @method
    async def rest(self, f: Callable[[int, Unpack[tuple[Quote, ...]]], Awaitable[None]]) -> None:
        await f(1, Quote(1.0), Quote(1.0))

    @method
    async def inherited(self, f: OfQuotes) -> None:
        await f(Quote(1.0), note=Quote(1.0))


def _of_anything(quote: Any) -> None:
    assert type(quote) is Quote


def _of_an_object(quote: object) -> None:
    assert type(quote) is Quote


def _of_a_variable(quote: T) -> None:
    assert type(quote) is Quote


def _of_any_number(*quotes: T) -> None:
    assert [type(one) for one in quotes] == [Quote]


class HasBid(Protocol):
    bid: Any


@dataclass
class Quote2(Quote):
    """A quote of another kind."""


def _of_a_protocol(quote: HasBid) -> None:
    assert type(quote) is Quote


def _of_a_param_spec(*args: P.args, **named: P.kwargs) -> None:
    assert [type(one) for one in args] == [Quote]
    assert not named


@pytest.mark.parametrize(
    "f",
    [
        _of_anything,
        _of_an_object,
        _of_a_variable,
        _of_any_number,
        _of_a_protocol,
        _of_a_param_spec,
    ],
)
async def test_the_interface_decides_where_a_function_has_no_definite_annotation(session_pair, f):
    async with session_pair(Tells(), None) as (_, session):
        await session.proxy("", Tells).one(f)


async def test_the_send_method_of_a_memory_channel_gets_values_of_the_interfaces_type(session_pair):
    send, receive = trio.open_memory_channel[Quote](1)
    with send, receive:
        async with session_pair(Tells(), None) as (_, session):
            await session.proxy("", Tells).one(send.send)
            assert await receive.receive() == Quote(1.0)
            await session.proxy("", Tells).one(send.send_nowait)
            assert await receive.receive() == Quote(1.0)


def _of_a_list(quotes: list) -> None:
    assert [type(one) for one in quotes] == [Quote]


def _of_a_list_of_anything(quotes: list[Any]) -> None:
    assert [type(one) for one in quotes] == [Quote]


def _of_a_sequence(quotes: Sequence[T] | None) -> None:
    assert [type(one) for one in quotes or ()] == [Quote]


@pytest.mark.parametrize("f", [_of_a_list, _of_a_list_of_anything, _of_a_sequence])
async def test_the_interface_decides_about_the_items_of_a_container(session_pair, f):
    async with session_pair(Tells(), None) as (_, session):
        await session.proxy("", Tells).several(f)


async def test_the_interface_also_decides_about_a_base_class_and_the_items_of_a_stream(
    session_pair,
):
    class Better:
        @method
        async def one(self, f: Callable[[Quote2], Awaitable[None]]) -> None:
            await f(Quote2(1.0))

        @method
        async def all(self, f: Callable[[AsyncGenerator[Quote, None]], Awaitable[None]]) -> None:
            async def quotes():
                yield Quote(2.0)

            await f(quotes())

    async def of_a_base(quote: Quote) -> None:
        got.append(quote)

    async def of_a_stream(quotes: AsyncIterator[Any]) -> None:
        got.extend([quote async for quote in quotes])

    got: list[Any] = []
    async with session_pair(Better(), None) as (_, session):
        await session.proxy("", Better).one(of_a_base)
        await session.proxy("", Better).all(of_a_stream)
    assert got == [Quote2(1.0), Quote(2.0)]


def _of_a_dict(quote: dict[str, Any]) -> None:
    assert quote == {"bid": 1.0}


async def test_a_function_with_another_annotation_gets_that_type(session_pair):
    async with session_pair(Tells(), None) as (_, session):
        await session.proxy("", Tells).one(_of_a_dict)


async def _kept(*quotes, **named):
    assert all(type(one) is Quote for one in (*quotes, *named.values()) if one != 1)
    assert len(quotes) + len(named) >= 2
    return quotes[0]


async def _first(quote, *quotes, best=None, note=None):
    return await _kept(quote, *quotes, **{} if best is None else {"best": best}, note=note or quote)


async def _third(quote, other, third=None, *, best=None):
    assert type(third or other) is Quote
    assert type(best or other) is Quote


@pytest.mark.parametrize("name", ["pair", "unpacked", "rest", "inherited"])
@pytest.mark.parametrize("f", [_kept, _first, _third])
async def test_a_protocols_annotations_of_args_and_kwargs_are_used(session_pair, f, name):
    if f is _third and name == "inherited":
        pytest.skip("it has a note")
    async with session_pair(Tells(), None) as (_, session):
        await getattr(session.proxy("", Tells), name)(f)


async def test_a_callback_may_annotate_its_own_rest_with_a_typed_dict(session_pair):
    async def best(*quotes: *tuple[Quote, ...], **named: Unpack[Options]) -> None:
        await _kept(*quotes, **named)

    async with session_pair(Tells(), None) as (_, session):
        call = session.call
        await call("pair", best)
        with pytest.raises(trio_rpc.RemoteError, match="has no parameter"):
            await session.proxy("", Tells).inherited(best)


async def test_local_names_in_a_protocols_annotations_are_resolved(session_pair):
    class Local(NamedTuple):
        x: set[int]

    class Takes(Protocol):
        async def __call__(self, one: Local) -> None: ...

    class Desk:
        @method
        async def tell(self, f: Takes) -> None:
            await f([[1]])

    got: list[Any] = []
    async with session_pair(Desk(), None) as (_, session):
        await session.proxy("", Desk).tell(got.append)
    assert got == [Local({1})]


class Dispatches:
    def __init__(self) -> None:
        self.got: list[str] = []

    @functools.singledispatchmethod
    def take(self, value: object) -> None:
        self.got.append(f"something: {value}")

    @take.register
    def _(self, value: Quote) -> None:
        self.got.append(f"a quote of {value.bid}")


async def test_a_method_that_dispatches_on_the_type_of_its_argument_may_be_a_callback(session_pair):
    dispatches = Dispatches()
    async with session_pair(Tells(), None) as (_, session):
        await session.proxy("", Tells).one(dispatches.take)
    assert dispatches.got == ["a quote of 1.0"]


class _Unsendable:
    def __call__(self, _text):
        return self


async def _answers_later(_text):
    await trio.lowlevel.checkpoint()
    return object()


async def _passes_on(_call, proceed):
    return await proceed()


@pytest.mark.parametrize("filters", [(), (_passes_on,)])
@pytest.mark.parametrize(
    "function", [lambda _: object(), _answers_later, _Unsendable(), MagicMock()]
)
async def test_a_callback_that_is_declared_to_return_none_may_return_any_object(
    session_pair, function, filters
):
    options = {"filters": filters}
    async with session_pair(Desk(), None, options_b=options) as (_, session):
        assert await session.proxy("", Desk).tell(function) == "None"
