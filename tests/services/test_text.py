from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.util.text import clip, one_line, quoted

any_text = st.text(st.characters(), max_size=300)


@given(any_text, st.integers(30, 200))
def test_clipped_text_is_short_and_can_be_encoded(text, most):
    clipped = clip(text, most)
    assert len(clipped) <= most
    clipped.encode()


@given(any_text)
def test_one_line_is_printable(text):
    line = one_line(text, 100)
    assert line.isprintable()
    assert "\n" not in line


@given(any_text)
def test_quoted_names_are_short_and_printable(name):
    shown = quoted(name)
    assert shown.isprintable()
    assert len(shown) <= 10 * 100 + 2


def test_clipped_text_tells_the_original_length():
    assert clip("x" * 1000, 30) == "x" * 11 + "… (1000 characters)"
    assert clip("x" * 30, 30) == "x" * 30


def test_a_subclass_becomes_plain_text():
    class Text(str):  # noqa: SLOT000
        pass

    assert type(clip(Text("abc"), 10)) is str
