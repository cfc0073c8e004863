"""A stored exception keeps the places where it was raised, but no frames and no local variables."""

from __future__ import annotations

import gc
import sys
import traceback
import weakref

import pytest
import trio

from trio_rpc.util.places import keep_all_places


class Held:
    """An object that a frame refers to."""


async def fails(held):
    await trio.lowlevel.checkpoint()
    raise OSError("raised by the test")


async def translates(held):
    try:
        await fails(held)
    except OSError as exc:
        raise trio.BrokenResourceError("it is gone") from exc


async def caught(held):
    """Return an exception whose frames refer to each function that awaited it."""
    try:
        await translates(held)
    except trio.BrokenResourceError as exc:
        return exc


def places(exc):
    return [(each.name, each.line) for each in traceback.extract_tb(exc.__traceback__)]


async def test_the_traceback_still_shows_every_place():
    exc = await caught(Held())
    before = traceback.format_exception(exc)
    keep_all_places(exc)
    assert places(exc) == [
        ("caught", "await translates(held)"),
        ("translates", 'raise trio.BrokenResourceError("it is gone") from exc'),
    ]
    assert places(exc.__cause__) == [
        ("translates", "await fails(held)"),
        ("fails", 'raise OSError("raised by the test")'),
    ]
    carets = str.maketrans("", "", "^~")  # only real code has columns to mark
    after = traceback.format_exception(exc)
    assert [line for line in "".join(after).splitlines() if line.strip()] == [
        line for line in "".join(before).splitlines() if line.translate(carets).strip()
    ]


async def test_the_traceback_keeps_no_object_alive(autojump_clock):
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


async def test_places_in_unwanted_modules_are_left_out():
    exc = await caught(Held())
    keep_all_places(exc, lambda module: module != __name__)
    assert exc.__traceback__ is exc.__cause__.__traceback__ is None


def raised(exc):
    with pytest.raises(type(exc)) as info:
        raise exc
    return info.value


def test_the_parts_and_contexts_of_a_group_keep_their_places():
    before, part = raised(KeyError("before")), raised(ValueError("part"))
    part.__context__ = before
    before.__context__ = part  # Python makes no such cycle itself, but accepts one
    group = raised(ExceptionGroup("raised by the test", [part]))
    keep_all_places(group)
    for exc in (group, part, before):
        assert places(exc) == [("raised", "raise exc")]
        assert exc.__traceback__.tb_frame.f_locals == {}


def test_an_uncaught_exception_is_printed_with_its_places(capfd):
    exc = raised(ValueError("raised by the test"))
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
