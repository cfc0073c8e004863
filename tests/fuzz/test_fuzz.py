"""The targets of the fuzzer hold for their seeds, for earlier findings, and for random changes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import corpus
from tests.fuzz.targets import SEEDS, TARGETS, joined, parts_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_and_the_corpus_of_a_target_are_handled(target):
    assert SEEDS[target]
    for each in (*SEEDS[target], *corpus.load(target), b""):
        TARGETS[target](each)


@pytest.mark.parametrize("target", TARGETS)
def test_changed_seeds_of_a_target_are_handled(target):
    seeds = [*SEEDS[target], *corpus.load(target)]

    @settings(max_examples=150)
    @given(
        st.sampled_from(seeds),
        st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2), st.binary(max_size=4))),
        st.sampled_from(seeds),
    )
    @example(seeds[0], [], b"")
    def check(seed, changes, other):
        data = bytearray(seed + other)
        for at, removed, added in changes:
            data[at : at + removed] = added
        TARGETS[target](bytes(data))

    check()


@pytest.mark.parametrize("target", TARGETS)
def test_random_bytes_are_handled(target):
    settings(max_examples=100)(given(st.binary(max_size=200))(TARGETS[target]))()


def test_parts_are_cut_as_they_were_joined():
    assert list(parts_of(joined(b"ab", b"", b"c"))) == [b"ab", b"", b"c"]
    assert list(parts_of(b"\x05ab")) == [b"ab"]


def test_short_new_input_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "FOLDER", tmp_path / "corpus")
    assert corpus.load("decoder") == []
    assert corpus.keep("decoder", [b"bb", b"a", b"x" * 1000]) == 2
    assert corpus.keep("decoder", [b"a", b"c"]) == 3
    assert corpus.load("decoder") == [b"a", b"c", b"bb"]
    assert corpus.keep("decoder", [bytes([n, n, n]) for n in range(200)]) == corpus.MOST


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="the group fuzz is not installed"
)
def test_a_search_of_two_seconds_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "frame_reader", "nats", "--seconds", "2"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no target has failed" in done.stdout
