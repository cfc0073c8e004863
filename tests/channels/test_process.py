"""The errors that a channel to a child process raises at its end.

For real processes, see tests/session/test_processes.py.
"""

from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_rpc.channels import ChannelBroken, ProcessChannel, ProcessExit
from trio_rpc.channels import process as process_module
from trio_rpc.channels.errors import detail_of
from trio_rpc.channels.process import describe_status
from trio_rpc.channels.supervised import EXIT_TIME, Ends, Patience


@pytest.fixture
async def child():
    made = []
    yield lambda *args: made.append(Child(*args)) or made[-1]
    for each in made:
        await trio.aclose_forcefully(each.channel)
        each.socket.close()


class Child:
    """The other end of a channel as a plain socket, and a process that ends when a test says so."""

    def __init__(self, status=None, after=0.0):
        ours, self.socket = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self.channel = ProcessChannel(stream, self, name="child process 1 (x)")
        self.pid = 1
        self.returncode = None
        self.status = status
        self.after = after

    async def wait(self):
        await trio.sleep(self.after)
        if self.status is None:
            await trio.sleep_forever()
        self.returncode = self.status
        return self.status


async def ends(child):
    """Return the kind of the channel's end and its text, and check its facts about the process."""
    with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)) as caught:
        await child.channel.receive()
    assert "\n" not in str(caught.value)
    status = child.channel.returncode
    assert detail_of(caught.value) == (None if status is None else ProcessExit(status))
    kind = trio.EndOfChannel if isinstance(caught.value, trio.EndOfChannel) else None
    return (kind or trio.BrokenResourceError).__name__, str(caught.value)


async def test_the_error_contains_the_exit_status_even_if_the_socket_ends_first(
    child, autojump_clock
):
    """A race: the exit status arrives last, and the channel waits for it."""
    dying = child(3, EXIT_TIME / 2)
    dying.socket.close()
    assert await ends(dying) == (
        "BrokenResourceError",
        "the child process 1 (x) ended with exit code 3",
    )
    assert trio.current_time() == EXIT_TIME / 2


async def test_exit_code_0_is_an_orderly_end(child):
    dying = child(0)
    dying.socket.close()
    assert await ends(dying) == ("EndOfChannel", "the child process 1 (x) ended with exit code 0")


async def test_exit_code_0_inside_a_packet_breaks_the_channel(child):
    dying = child(0)
    dying.socket.send(b"\0\0\0\x05hel")
    dying.socket.close()
    assert await ends(dying) == (
        "BrokenResourceError",
        "the child process 1 (x) ended with exit code 0",
    )


async def test_a_child_may_close_its_end_and_go_on(child, autojump_clock):
    living = child()
    living.socket.close()
    assert await ends(living) == (
        "EndOfChannel",
        "the child process 1 (x) closed its end of the channel",
    )
    assert trio.current_time() == EXIT_TIME


async def test_closing_the_childs_end_inside_a_packet_breaks_the_channel(child, autojump_clock):
    living = child()
    living.socket.send(b"\0\0\0\x05hel")
    living.socket.close()
    assert await ends(living) == (
        "BrokenResourceError",
        "child process 1 (x): the connection ended inside a packet",
    )


@pytest.mark.parametrize("method", ["receive", "send", "flush"])
async def test_a_child_that_closes_its_end_with_unread_data_and_goes_on_is_named(
    child, autojump_clock, method
):
    living = child()
    assert living.channel.send_nowait(b"unread")
    while method == "flush" and not living.channel.unsent:
        assert living.channel.send_nowait(bytes(100_000))
    living.socket.close()
    uses = {
        "receive": living.channel.receive,
        "send": partial(living.channel.send, b"x"),
        "flush": living.channel.flush,
    }
    with pytest.raises(
        trio.BrokenResourceError, match=r"^child process 1 \(x\): connection broken: "
    ) as caught:
        await uses[method]()
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_a_child_that_does_not_finish_a_packet_is_named(child, autojump_clock):
    living = child()
    living.socket.send(b"\0\0\0\x05hel")
    text = "child process 1 (x): the peer began a packet and took more than 30 s over it"
    assert await ends(living) == ("BrokenResourceError", text)


async def test_packets_are_received_before_the_end(child):
    dying = child(-9)
    dying.socket.send(b"\0\0\0\x05hello\0\0\0\x05again")
    dying.socket.close()
    assert await dying.channel.receive() == b"hello"
    assert await dying.channel.receive() == b"again"
    assert await ends(dying) == (
        "BrokenResourceError",
        "the child process 1 (x) was killed by SIGKILL",
    )


@pytest.mark.parametrize("method", ["send", "flush"])
async def test_a_failed_write_says_how_the_process_ended(child, method):
    dying = child(3)
    if method == "flush":
        while not dying.channel.unsent:
            assert dying.channel.send_nowait(bytes(100_000))
    dying.socket.close()
    with pytest.raises(ChannelBroken, match="ended with exit code 3") as caught:
        await (dying.channel.flush() if method == "flush" else dying.channel.send(b"x"))
    assert caught.value.detail == ProcessExit(3)


async def test_race_the_channel_is_closed_while_it_waits_for_the_exit_status(
    child, autojump_clock, nursery
):
    """A race: this end closes meanwhile, and the receiving task still ends."""
    living = child()
    living.socket.close()
    nursery.start_soon(ends, living)
    await wait_all_tasks_blocked(0.005)
    await living.channel.aclose()
    assert living.channel.closed.is_set()
    with pytest.raises(trio.ClosedResourceError):
        await living.channel.receive()


async def test_shut_ends_a_channel_whose_other_end_another_process_holds(child):
    orphaned = child(-15)
    outcomes = []

    async def receive():
        outcomes.append(await ends(orphaned))

    async with trio.open_nursery() as receiving:
        receiving.start_soon(receive)
        await wait_all_tasks_blocked()
        orphaned.channel.shut()
    assert outcomes == [("BrokenResourceError", "the child process 1 (x) was killed by SIGTERM")]
    await orphaned.channel.aclose()
    orphaned.channel.shut()  # calling it again has no effect


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "ended with exit code 0"),
        (255, "ended with exit code 255"),
        (-11, "was killed by SIGSEGV"),
        (-40, "was killed by signal 40"),
    ],
)
def test_an_exit_status_is_described(status, text):
    assert describe_status(status) == text


class Unkillable:
    """A process that hangs in the operating system, where no signal reaches it."""

    returncode = None

    def __init__(self):
        self.signals = []

    def terminate(self):
        self.signals.append((trio.current_time(), "SIGTERM"))

    def kill(self):
        self.signals.append((trio.current_time(), "SIGKILL"))

    async def wait(self):
        await trio.sleep_forever()


async def test_a_process_that_survives_sigkill_is_waited_for_a_bounded_time(autojump_clock, caplog):
    process = Unkillable()
    ends = Ends(Patience(goodbye=2, terminate=3))
    await process_module._end(process, "x", ends)
    assert process.signals == [(2, "SIGTERM"), (5, "SIGKILL")]
    assert trio.current_time() == 5 + process_module.KILL_TIME
    assert caplog.messages == [
        "x did not end within 3 s of SIGTERM",
        "x has not ended within 5 s of SIGKILL",
    ]


async def test_hurry_shortens_the_time_and_never_lengthens_it(autojump_clock):
    for goodbye, hurry in ((10, 1), (1, 10)):
        started = trio.current_time()
        process = Unkillable()
        ends = Ends(Patience(goodbye=goodbye, terminate=0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process_module._end, process, "x", ends)
            await wait_all_tasks_blocked()
            ends.hurry(hurry)
        assert process.signals[0] == (started + 1, "SIGTERM")
