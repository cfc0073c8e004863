"""Names of methods that differ from their functions' names."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import trio

import trio_rpc
from trio_rpc.services.tables import build_table
from trio_rpc.testing import open_session_pair


class Tasks:
    @trio_rpc.method(name="start-task")
    async def start_task(self, n: int) -> int:
        return n + 1

    @trio_rpc.notification(name="log-line")
    def log(self, line: str) -> None: ...

    @trio_rpc.stream(name="all-tasks")
    async def tasks(self) -> AsyncGenerator[int, None]:
        yield 1

    @trio_rpc.duplex(name="task-chat")
    async def chat(self, channel: trio.abc.Channel[str]) -> None: ...


async def test_a_method_can_have_a_name_that_python_does_not_allow():
    table = build_table({"a-b": Tasks()})
    assert list(table) == ["a-b.start-task", "a-b.log-line", "a-b.all-tasks", "a-b.task-chat"]
    async with open_session_pair(None, {"a-b": Tasks()}) as (session, _):
        assert await session.call("a-b.start-task", 1) == 2
        tasks = session.proxy("a-b", Tasks)
        assert await tasks.start_task(2) == 3
        async with tasks.tasks() as items:
            assert [item async for item in items] == [1]
        with pytest.raises(trio_rpc.MethodNotFound):
            await session.call("a-b.start_task", 1)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ä", 3, "a\n"])
@pytest.mark.parametrize("decorator", [trio_rpc.method, trio_rpc.notification, trio_rpc.stream])
def test_a_name_has_the_characters_of_names(decorator, name):
    with pytest.raises(ValueError, match="name= must consist of ASCII"):
        decorator(name=name)


def test_two_methods_cannot_have_one_name():
    class Twice:
        @trio_rpc.method
        def one(self) -> None: ...

        @trio_rpc.method(name="one")
        def other(self) -> None: ...

    with pytest.raises(ValueError, match="two methods have the name 'one'"):
        build_table(Twice())


def test_a_class_and_its_interface_agree_on_the_name():
    class Mine:
        @trio_rpc.method
        async def start_task(self, n: int) -> int: ...

    class Inherits(Tasks):
        async def start_task(self, n: int) -> int: ...

    identifier = trio_rpc.Identifier("tasks", Tasks)
    assert "tasks.start-task" in build_table({identifier: Inherits()})
    with pytest.raises(
        TypeError, match="'start_task', and in the interface OnlyStart 'start-task'"
    ):
        build_table({trio_rpc.Identifier("tasks", OnlyStart): Mine()})


class OnlyStart:
    @trio_rpc.method(name="start-task")
    async def start_task(self, n: int) -> int: ...
