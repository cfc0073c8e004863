"""Finding where messages begin and end in the bytes of a WebSocket."""

from __future__ import annotations

from itertools import pairwise

from helpers.websocket_peer import BINARY, CLOSE, PING, PONG, TEXT, frame
from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.channels.websocket.frames import FrameWatch

SIZES = st.sampled_from([0, 1, 125, 126, 1000, 65_535, 65_536, 70_000])


@st.composite
def messages(draw):
    """Draw messages as the bytes of their frames, with control frames in and between them."""
    masked = draw(st.booleans())
    control = st.builds(
        lambda opcode, size: frame(opcode, bytes(size), masked=masked),
        st.sampled_from([CLOSE, PING, PONG]),
        st.integers(0, 125),
    )
    found = []
    for _ in range(draw(st.integers(1, 4))):
        sizes = draw(st.lists(SIZES, min_size=1, max_size=4))
        opcodes = [draw(st.sampled_from([BINARY, TEXT])), *[0] * (len(sizes) - 1)]
        frames = []
        for number, (opcode, size) in enumerate(zip(opcodes, sizes, strict=True), 1):
            frames += draw(st.lists(control, max_size=2)) if frames else []
            last = number == len(sizes)
            frames.append(frame(opcode, bytes(size), fin=last, masked=masked))
        found.append((b"".join(frames), sum(sizes)))
        found += [(each, 0) for each in draw(st.lists(control, max_size=2))]
    return found


@given(messages(), st.data())
def test_the_watch_knows_whether_it_is_inside_a_message(whole, data):
    stream = b"".join(each for each, _ in whole)
    ends = {0}
    for each, _ in whole:
        ends.add(max(ends) + len(each))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    watch = FrameWatch()
    for start, end in pairwise([0, *cuts, len(stream)]):
        was_whole = watch.feed(stream[start:end])
        assert was_whole == any(start <= each <= end for each in ends)
        assert watch.is_midway == (end not in ends)
    assert watch.content == sum(size for _, size in whole)


@given(messages())
def test_the_watch_gives_the_same_result_for_single_bytes(whole):
    stream = b"".join(each for each, _ in whole)[:2000]
    watch, other = FrameWatch(), FrameWatch()
    for at in range(len(stream)):
        watch.feed(stream[at : at + 1])
    other.feed(stream)
    assert vars(watch) == vars(other)


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_the_watch_accepts_any_bytes(parts):
    watch = FrameWatch()
    for part in parts:
        watch.feed(part)
    assert len(watch._head) < 14
