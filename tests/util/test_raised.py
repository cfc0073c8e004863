"""Texts and notes of exceptions, whatever the code of their classes does."""

from __future__ import annotations

import dataclasses

import pytest

from trio_rpc.util import raised


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


def test_a_text_is_found_for_each_exception():
    assert raised.text_of(ValueError("no")) == "no"
    assert raised.repr_of([1]) == "[1]"
    assert raised.described(ValueError("no")) == "ValueError: no"
    assert raised.text_of(Wordless()) == "<str() of Wordless failed>"
    assert raised.repr_of(Wordless()) == "<repr() of Wordless failed>"
    assert raised.described(Wordless()) == "Wordless: <str() of Wordless failed>"


@pytest.mark.parametrize("exc", [ValueError("no"), Frozen(5)], ids=lambda each: type(each).__name__)
def test_each_exception_can_be_changed_without_code_of_its_class(exc):
    cause, context = KeyError("cause"), KeyError("context")
    raised.add_note(exc, "one")
    raised.add_note(exc, "two")
    assert exc.__notes__ == ["one", "two"]
    raised.set_notes(exc, [])
    assert exc.__notes__ == ["one", "two"]
    raised.set_notes(exc, ["three"])
    raised.set_cause(exc, cause)
    raised.set_context(exc, context)
    raised.set_traceback(exc, None)
    assert (exc.__notes__, exc.__cause__, exc.__context__) == (["three"], cause, context)


def test_notes_that_are_not_a_list_are_left_alone():
    exc = ValueError()
    exc.__notes__ = "mine"
    raised.add_note(exc, "ours")
    assert exc.__notes__ == "mine"
