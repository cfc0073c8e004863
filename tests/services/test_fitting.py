"""Identifiers, and the comparison of a service's class with the interface of its identifier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypedDict

import pytest
import trio

from trio_rpc import Identifier
from trio_rpc.errors import InvalidArguments
from trio_rpc.services.decorators import duplex, method, notification, stream
from trio_rpc.services.fitting import fits
from trio_rpc.services.proxies import Proxy
from trio_rpc.services.tables import build_table


class Gone(Exception):
    pass


class Commands:
    """The interface."""

    @method(raises=(Gone,))
    async def run(self, name: str, times: int = 1) -> float:
        raise NotImplementedError

    @notification
    async def log(self, line: str) -> None:
        raise NotImplementedError

    @stream
    async def watch(self, name: str) -> AsyncIterator[int]:
        raise NotImplementedError
        yield 1

    @duplex
    async def chat(self, channel: trio.abc.Channel[str], *, room: str) -> None:
        raise NotImplementedError

    @method
    async def start(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        raise NotImplementedError


COMMANDS = Identifier("commands", Commands)


class Live(Commands):
    """Overrides without decorators."""

    async def run(self, name: str, times: int = 1) -> float:
        return 1.0


class Apart:
    """Has the same methods, and no common base."""

    @method
    async def run(self, name, times=1):
        raise Gone(name)

    @notification
    def log(self, line: str | int, *more: str) -> None: ...

    @stream
    async def watch(self, name: object) -> AsyncIterator[bool]:
        yield True

    @duplex
    async def chat(self, other: trio.abc.Channel[str], *, room: str, size: int = 1) -> None: ...

    @method
    async def start(self, *, task_status=trio.TASK_STATUS_IGNORED): ...

    @method
    async def more(self) -> str:
        return "more"


# ── the identifier ───────────────────────────────────────────────────────────────────────────────


def test_an_identifier_is_one_value_of_name_and_interface():
    assert Identifier("commands", Commands) == COMMANDS
    assert hash(Identifier("commands", Commands)) == hash(COMMANDS)
    assert Identifier("other", Commands) != COMMANDS
    assert (COMMANDS.name, COMMANDS.interface) == ("commands", Commands)
    assert Identifier("", Commands).name == ""


@pytest.mark.parametrize("name", ["a.b", "a b", "ä", ".", "a\n", "trio_rpc", "*"])
def test_an_identifier_with_an_illegal_name_is_refused(name):
    with pytest.raises(ValueError, match=r"a service name must consist of|is reserved"):
        Identifier(name, Commands)


@pytest.mark.parametrize("name", [None, 3, b"commands", Commands])
def test_the_name_of_an_identifier_is_a_str(name):
    with pytest.raises(TypeError, match="the name of an identifier must be a str"):
        Identifier(name, Commands)


@pytest.mark.parametrize(
    ("interface", "why"), [(Commands(), "must be a class"), (int, "no methods"), (None, "class")]
)
def test_the_interface_of_an_identifier_has_methods(interface, why):
    with pytest.raises(TypeError, match=why):
        Identifier("commands", interface)


# ── registration ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("service", [Live(), Apart(), Commands()])
def test_a_class_that_fits_is_served_under_the_name_of_its_identifier(service):
    table = build_table({COMMANDS: service})
    assert {f"commands.{name}" for name in ("run", "log", "watch", "chat", "start")} <= set(table)


def test_a_service_may_have_more_methods_than_its_interface():
    assert "commands.more" in build_table({COMMANDS: Apart()})


def test_the_types_of_the_interface_are_used_where_the_class_has_none():
    signature = build_table({COMMANDS: Apart()})["commands.run"].signature
    with pytest.raises(InvalidArguments, match="parameter 'times'"):
        signature.bind(["save", "twice"])


def test_exceptions_that_the_interface_declares_reach_the_caller_as_themselves():
    assert build_table({COMMANDS: Apart()})["commands.run"].raises == (Gone,)
    assert build_table({"commands": Apart()})["commands.run"].raises == ()


@pytest.mark.parametrize(
    "services",
    [
        {COMMANDS: Live(), "commands": Live()},
        {"commands": Live(), COMMANDS: Live()},
        {COMMANDS: Live(), Identifier("commands", Apart): Apart()},
    ],
)
def test_two_services_under_one_name_are_refused(services):
    with pytest.raises(ValueError, match="two services have the name 'commands'"):
        build_table(services)


def without(name):
    members = {each: value for each, value in vars(Apart).items() if each != name}
    return type("Partly", (), members)


def having(name, function):
    return type("Partly", (), {**vars(without(name)), name: function})


async def run_without_times(self, name: str) -> float: ...
async def run_with_text(self, name: str, times: str = "1") -> float: ...
async def run_one_way(self, name: str, times: int = 1) -> None: ...
async def log_and_answer(self, line: str) -> None: ...
async def watch_once(self, name: str) -> int: ...
async def undecorated(self, name: str, times: int = 1) -> float: ...
async def run_turned(self, times: int, name: str = "") -> float: ...
async def run_renamed(self, command: str, times: int = 1) -> float: ...
async def run_by_position(self, name: str, times: int = 1, /) -> float: ...
async def run_by_name(self, *, name: str, times: int = 1) -> float: ...
async def run_and_more(self, name: str, times: int, user: str) -> float: ...
async def run_as(self, name: str, times: int = 1, *, user: str) -> float: ...
async def run_to_text(self, name: str, times: int = 1) -> str: ...
async def chat_numbers(self, channel: trio.abc.Channel[int], *, room: str) -> None: ...
async def chat_anywhere(self, channel: trio.abc.Channel[str]) -> None: ...
async def never_started(self) -> None: ...


async def items(self, name: str) -> AsyncIterator[str]:
    yield ""


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (without("run"), "it lacks 'run'"),
        (having("run", undecorated), "its 'run' is not decorated"),
        (having("run", notification(run_one_way)), "'run' is a notification, and a method"),
        (having("log", method(log_and_answer)), "'log' is a method, and a notification"),
        (having("watch", method(watch_once)), "'watch' is a method, and a stream in the"),
        (having("run", method(run_without_times)), r"run\(\): it lacks the parameter 'times'"),
        (having("run", method(run_with_text)), r"run\(\): its parameter 'times' is str, and int"),
        (having("run", method(run_renamed)), r"run\(\): its parameter 'command' is 'name' in the"),
        (having("run", method(run_turned)), r"run\(\): its parameter 'times' is 'name' in the"),
        (having("run", method(run_by_position)), r"parameter 'name' cannot be passed by name$"),
        (having("run", method(run_by_name)), r"'name' cannot be passed by position$"),
        (having("run", method(run_and_more)), r"run\(\): its parameter 'times' has no default"),
        (having("run", method(run_as)), r"run\(\): the interface lacks its parameter 'user'"),
        (having("run", method(run_to_text)), r"run\(\): its result is str, and float in the inte"),
        (having("watch", stream(items)), r"watch\(\): its items are str, and int in the"),
        (having("chat", duplex(chat_numbers)), r"chat\(\): its items are int, and str in the"),
        (having("chat", duplex(chat_anywhere)), r"chat\(\): it lacks the parameter 'room'"),
        (having("start", method(never_started)), r"start\(\): it lacks the parameter 'task_st"),
    ],
)
def test_a_class_that_does_not_fit_is_refused_at_registration_with_the_method_that_is_wrong(
    cls, why
):
    with pytest.raises(TypeError, match=f"^Partly does not fit Commands: .*{why}"):
        build_table({COMMANDS: cls()})


def test_a_subclass_with_another_signature_is_refused():
    class Other(Commands):
        async def run(self, name: str) -> float: ...

    with pytest.raises(TypeError, match=r"^Other does not fit Commands: run\(\): it lacks"):
        build_table({COMMANDS: Other()})


class Rest:
    @method
    async def run(self, *names: str, **named: int) -> None: ...


class RestOfOne:
    @method
    async def run(self, *names: str) -> None: ...


class RestOfNone:
    @method
    async def run(self) -> None: ...


@pytest.mark.parametrize(
    ("cls", "why"), [(RestOfOne, r"\*\*named"), (RestOfNone, r"\*names"), (Rest, None)]
)
def test_a_class_accepts_any_number_of_arguments_if_the_interface_does(cls, why):
    identifier = Identifier("rest", Rest)
    if why is None:
        build_table({identifier: cls()})
        return
    with pytest.raises(TypeError, match=f"it lacks {why}"):
        build_table({identifier: cls()})


def test_a_class_that_accepts_any_arguments_fits():
    class Anything(Commands):
        async def run(self, *args: Any, **kwargs: Any) -> float:
            return 1.0

    build_table({COMMANDS: Anything()})


# ── annotations ──────────────────────────────────────────────────────────────────────────────────


class Named(Protocol):
    name: str


class Keys(TypedDict):
    name: str


class Base: ...


class Derived(Base): ...


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (int, int),
        (bool, int),
        (int, float),
        (Derived, Base),
        (int, int | str),
        (int | None, str | int | None),
        (None, int | None),
        (list[bool], list[int]),
        (list[int], Sequence[int]),
        (dict[str, int], Mapping[str, float]),
        (tuple[int, ...], tuple[float, ...]),
        (tuple[int, int], tuple[int, ...]),
        (Literal["a"], Literal["a", "b"]),
        (Literal["a", 1], str | int),
        (list, list[int]),
        (Any, int),
        (int, Any),
        (int, object),
        (Base, Named),
        (dict[str, str], Keys),
        (Callable[[int], Awaitable[None]], Callable[..., Any]),
    ],
)
def test_values_of_a_narrower_type_fit(narrow, wide):
    assert fits(narrow, wide)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (int, str),
        (float, int),
        (Base, Derived),
        (int | str, int),
        (int | None, int),
        (None, int),
        (list[str], list[int]),
        (Sequence[int], list[int]),
        (dict[int, int], dict[str, int]),
        (tuple[int], tuple[int, int]),
        (tuple[str, ...], tuple[int, ...]),
        (Literal["a", "c"], Literal["a", "b"]),
        (Literal["a"], int),
        (str, Literal["a"]),
        (Callable[[], Awaitable[None]], int),
        (int, Callable[[], Awaitable[None]]),
    ],
)
def test_values_of_another_type_do_not_fit(narrow, wide):
    assert not fits(narrow, wide)


# ── proxies ──────────────────────────────────────────────────────────────────────────────────────


def test_a_proxy_has_a_name_and_no_identifier():
    # A session takes the identifier apart, so that there is one proxy for both.
    with pytest.raises(TypeError, match="must be a str"):
        Proxy(None, COMMANDS)
