"""An exception that is kept says where it was raised, and keeps nothing else."""

from __future__ import annotations

import gc
import sys
import traceback
import weakref

import pytest
import trio

from trio_rpc.util.places import keep_all_places


class Held:
    """Something that a frame has."""


async def fails(held):
    await trio.lowlevel.checkpoint()
    raise OSError("a test's own")


async def translates(held):
    try:
        await fails(held)
    except OSError as exc:
        raise trio.BrokenResourceError("it is gone") from exc


async def caught(held):
    """An exception, and by its frames all that has awaited it."""
    try:
        await translates(held)
    except trio.BrokenResourceError as exc:
        return exc


def places(exc):
    return [(each.name, each.line) for each in traceback.extract_tb(exc.__traceback__)]


async def test_the_places_stay_in_the_traceback():
    exc = await caught(Held())
    before = traceback.format_exception(exc)
    keep_all_places(exc)
    assert places(exc) == [
        ("caught", "await translates(held)"),
        ("translates", 'raise trio.BrokenResourceError("it is gone") from exc'),
    ]
    assert places(exc.__cause__) == [
        ("translates", "await fails(held)"),
        ("fails", 'raise OSError("a test\'s own")'),
    ]
    carets = str.maketrans("", "", "^~")  # Python knows the columns of real code only
    after = traceback.format_exception(exc)
    assert [line for line in "".join(after).splitlines() if line.strip()] == [
        line for line in "".join(before).splitlines() if line.translate(carets).strip()
    ]


async def test_nothing_is_kept_alive_by_the_places(autojump_clock):
    held = Held()
    alive = weakref.ref(held)
    gc.collect()
    gc.disable()
    try:
        exc = await caught(held)
        keep_all_places(exc)
        del held
        assert alive() is None
        assert exc.__traceback__.tb_frame.f_back is None
        assert not exc.__traceback__.tb_frame.f_locals
    finally:
        gc.enable()


async def test_modules_that_are_not_wanted_are_left_out():
    exc = await caught(Held())
    keep_all_places(exc, lambda module: module != __name__)
    assert exc.__traceback__ is exc.__cause__.__traceback__ is None


def raised(exc):
    with pytest.raises(type(exc)) as info:
        raise exc
    return info.value


def test_what_a_group_is_made_of_and_what_came_before_keep_their_places_too():
    before, part = raised(KeyError("before")), raised(ValueError("part"))
    part.__context__ = before
    before.__context__ = part  # Python itself makes no such ring, but may be given one
    group = raised(ExceptionGroup("a test's own", [part]))
    keep_all_places(group)
    for exc in (group, part, before):
        assert places(exc) == [("raised", "raise exc")]
        assert exc.__traceback__.tb_frame.f_locals == {}


def test_an_uncaught_exception_is_printed_with_its_places(capfd):
    exc = raised(ValueError("a test's own"))
    keep_all_places(exc)
    sys.__excepthook__(type(exc), exc, exc.__traceback__)
    printed = capfd.readouterr().err
    assert f'"{__file__}"' in printed
    assert "in raised" in printed


@pytest.mark.parametrize("again", [1, 2])
def test_an_exception_without_a_traceback_has_none_afterwards(again):
    exc = ValueError()
    for _ in range(again):
        keep_all_places(exc)
    assert exc.__traceback__ is None
