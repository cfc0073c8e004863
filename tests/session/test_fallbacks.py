"""A fallback of the services handles names that no table has: dynamic dispatch."""

from __future__ import annotations

import logging

import pytest
import trio
from helpers.handlers import Echo

import trio_rpc
from trio_rpc import Call, Fate, Identifier, MethodNotFound
from trio_rpc.cli.exits import Usage
from trio_rpc.cli.target import load_services


class Unknown(Exception):
    pass


class Dynamic:
    """Records the calls that reach it, and answers with them."""

    def __init__(self):
        self.seen = []
        self.notified = trio.Event()

    @trio_rpc.method
    async def named(self) -> str:
        return "named"

    @trio_rpc.fallback(raises=(Unknown,))
    async def anything(self, call: Call) -> object:
        self.seen.append((call.method, [*call.args], {**call.kwargs}))
        if call.id is None:
            self.notified.set()
        verb = call.method.rpartition(".")[2]
        if verb == "fail":
            raise ZeroDivisionError("the fallback's own")
        if verb == "declared":
            raise Unknown("declared")
        if verb == "missing":
            raise MethodNotFound(f"there is no method {call.method!r}")
        if verb == "sleep":
            await trio.sleep_forever()
        if verb == "back":
            return await call.args[0](1)
        return [verb, *call.args]

    def plain(self):
        raise AssertionError


async def test_a_call_of_a_name_that_no_table_has_reaches_the_fallback(session_pair):
    """The handling of a request can be overridden: one function gets its method and arguments."""
    dynamic = Dynamic()
    async with session_pair({"dynamic": dynamic, "other": Echo()}) as (_, b):
        assert await b.call("dynamic.add", 1, 2, base=10) == ["add", 1, 2]
        assert dynamic.seen == [("dynamic.add", [1, 2], {"base": 10})]
        assert await b.call("dynamic.named") == "named"
        assert len(dynamic.seen) == 1
        for name in ("other.add", "nowhere.add", "add"):
            with pytest.raises(MethodNotFound):
                await b.call(name)
        assert len(dynamic.seen) == 1


async def test_a_notification_of_a_name_that_no_table_has_reaches_the_fallback(session_pair):
    """The handling of a notification can be overridden in the same way.

    It has no id, and gets no answer.
    """
    dynamic = Dynamic()
    async with session_pair({"dynamic": dynamic}) as (a, b):
        await b.notify("dynamic.changed", "file")
        await dynamic.notified.wait()
        await b.ping()
        assert dynamic.seen == [("dynamic.changed", ["file"], {})]
        assert a.statistics().notifications_in == 0


async def test_the_fallback_of_the_service_without_a_name_gets_names_of_other_services(
    session_pair,
):
    root, other = Dynamic(), Dynamic()
    services = {"": root, "other": other, "echo": Echo()}
    async with session_pair(services) as (_, b):
        assert await b.call("x") == ["x"]
        assert await b.call("a.b.c") == ["c"]
        assert await b.call("echo.missing_here") == ["missing_here"]
        assert await b.call("other.x") == ["x"]
        assert [name for name, *_ in root.seen] == ["x", "a.b.c", "echo.missing_here"]
        assert [name for name, *_ in other.seen] == ["other.x"]


@pytest.mark.parametrize(
    "name",
    [
        "dynamic.__class__",
        "dynamic.__init__",
        "dynamic.plain",
        "dynamic.seen",
        "dynamic.anything",
        "__class__",
        "anything",
    ],
)
async def test_law_13_a_name_that_reaches_a_fallback_chooses_no_attribute(name, session_pair):
    root = Dynamic()
    async with session_pair({"": root, "dynamic": root}) as (_, b):
        assert await b.call(name, 7) == [name.rpartition(".")[2], 7]
        assert root.seen == [(name, [7], {})]


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "x" * 256, "\u202ename", "trio_rpc.missing"])
async def test_a_name_that_cannot_be_shown_reaches_no_fallback(name, session_pair):
    root = Dynamic()
    async with session_pair({"": root}) as (_, b):
        with pytest.raises(MethodNotFound):
            await b.call(name)
        assert root.seen == []
        assert await b.call("x" * 255) == ["x" * 255]


async def test_a_fallback_that_raises_ends_its_own_call_only(session_pair, caplog):
    async with session_pair({"dynamic": Dynamic()}) as (_, b):
        with caplog.at_level(logging.CRITICAL, "trio_rpc"), pytest.raises(ZeroDivisionError):
            await b.call("dynamic.fail")
        with pytest.raises(trio_rpc.RemoteError, match="declared"):
            await b.call("dynamic.declared")
        assert await b.call("dynamic.x") == ["x"]


async def test_an_exception_that_a_fallback_declares_arrives_as_itself(session_pair):
    class Interface:
        @trio_rpc.method(raises=(Unknown,))
        async def declared(self) -> None:
            raise NotImplementedError

    async with session_pair({"dynamic": Dynamic()}) as (_, b):
        with pytest.raises(Unknown):
            await b.proxy("dynamic", Interface).declared()


async def test_a_fallback_refuses_a_name_with_method_not_found(session_pair, caplog):
    async with session_pair({"dynamic": Dynamic()}) as (_, b):
        with pytest.raises(
            MethodNotFound, match=r"there is no method 'dynamic\.missing'"
        ) as refused:
            await b.call("dynamic.missing")
        assert refused.value.fate is Fate.NOT_STARTED
    assert "dynamic.missing" not in caplog.text


async def test_a_call_of_a_fallback_is_cancelled_with_its_caller(session_pair, autojump_clock):
    async with session_pair({"dynamic": Dynamic()}) as (a, b):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.call, "dynamic.sleep")
            while not a.tree():
                await trio.lowlevel.checkpoint()
            assert [node.method for node in a.tree()] == ["dynamic.sleep"]
            nursery.cancel_scope.cancel()
        assert a.tree() == b.tree() == []


async def test_a_function_that_is_passed_to_a_fallback_can_be_called(session_pair):
    async def double(value):
        return 2 * value

    async with session_pair({"dynamic": Dynamic()}) as (_, b):
        assert await b.call("dynamic.back", double) == 2


async def test_a_stream_has_no_fallback(session_pair):
    async with session_pair({"dynamic": Dynamic()}) as (_, b):
        with pytest.raises(MethodNotFound, match=r"^there is no method 'dynamic\.x'$"):
            async with b.stream("dynamic.x") as stream:
                await stream.receive()
        async with trio.open_nursery() as nursery:
            with pytest.raises(trio_rpc.InvalidArguments, match="task_status"):
                await nursery.start(b.proxy("dynamic").x)


async def test_filters_see_the_name_that_arrived(session_pair):
    seen = []

    async def note(call, proceed):
        seen.append(call.method)
        return await proceed()

    async with session_pair({"dynamic": Dynamic()}, options_a={"filters": [note]}) as (_, b):
        await b.call("dynamic.x")
    assert seen == ["dynamic.x"]


async def test_a_fallback_relays_calls_to_another_session(session_pair):
    class Relay:
        @trio_rpc.fallback
        def relay(self, call):
            return other.call(call.method, *call.args, **call.kwargs)

    async with session_pair({"echo": Echo()}) as (_, other), session_pair(Relay()) as (_, b):
        assert await b.call("echo.echo", 5) == 5
        with pytest.raises(MethodNotFound, match="there is no service 'nowhere'") as refused:
            await b.call("nowhere.echo")
        assert refused.value.fate is Fate.NOT_STARTED


async def test_the_fallback_of_a_service_is_removed_with_the_service(
    session_pair,
):
    async with session_pair() as (a, b):
        with pytest.raises(MethodNotFound):
            await b.call("x")
        a.set("", Dynamic())
        assert await b.call("x") == ["x"]
        a.remove("")
        with pytest.raises(MethodNotFound):
            await b.call("x")


async def test_a_service_may_be_nothing_but_a_fallback(session_pair):
    class Only:
        @trio_rpc.fallback
        async def handle(self, call):
            return call.method

    class Interface:
        @trio_rpc.method
        async def run(self) -> str:
            raise NotImplementedError

    async with session_pair({"only": Only()}) as (a, b):
        assert await b.call("only.x") == "only.x"
        with pytest.raises(TypeError, match="Only does not fit Interface: it lacks 'run'"):
            a.set(Identifier("other", Interface), Only())


async def test_a_subclass_overrides_a_fallback_without_a_decorator(session_pair):
    class Other(Dynamic):
        async def anything(self, call):
            return "other"

    async with session_pair(Other()) as (_, b):
        assert await b.call("x") == "other"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: trio_rpc.fallback(3), "must be a function"),
        (lambda: trio_rpc.fallback(_no_call), r"must have two parameters: \(self, call\)"),
        (lambda: trio_rpc.fallback(_three), "must have two parameters"),
        (lambda: trio_rpc.fallback(_generator), "is a generator"),
        (lambda: trio_rpc.fallback(_async_generator), "is a generator"),
        (lambda: trio_rpc.fallback(trio_rpc.method(_two)), "cannot also be called by its own name"),
        (lambda: trio_rpc.fallback(raises=(int,)), "not a subclass of Exception"),
    ],
)
async def test_a_function_that_cannot_be_a_fallback_is_refused(make, why):
    with pytest.raises(TypeError, match=why):
        make()


def _no_call(self): ...
def _three(self, call, more): ...


def _generator(self, call):
    yield 1


async def _async_generator(self, call):
    yield 1


async def two(self, call): ...


_two = two


async def test_a_class_has_at_most_one_fallback(session_pair):
    class Two(Dynamic):
        @trio_rpc.fallback
        async def other(self, call): ...

    async with session_pair() as (a, _):
        with pytest.raises(TypeError, match="Two has two fallbacks: anything and other"):
            a.set("two", Two())


@pytest.mark.parametrize("cls", ["Only", "Nothing"])
async def test_a_class_with_nothing_but_a_fallback_can_be_served_from_the_command_line(
    cls, tmp_path, monkeypatch
):
    source = (
        "import trio_rpc\nclass Nothing: ...\nclass Only:\n    def __init__(self, session): ...\n"
    )
    source += "    @trio_rpc.fallback\n    async def handle(self, call): ...\n"
    name = f"fallbacks_of_{cls.lower()}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    if cls == "Only":
        assert load_services(f"{name}:Only").__name__ == "Only"
        return
    with pytest.raises(Usage, match="the class has no methods marked"):
        load_services(f"{name}:Nothing")
