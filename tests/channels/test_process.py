"""What a channel to a child process says of its end; true processes are in tests/session/test_processes.py."""

from __future__ import annotations

import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_rpc.channels import ProcessChannel
from trio_rpc.channels import process as process_module
from trio_rpc.channels.process import EXIT_TIME, Patience, describe_status


@pytest.fixture
async def child():
    made = []
    yield lambda *args: made.append(Child(*args)) or made[-1]
    for each in made:
        await trio.aclose_forcefully(each.channel)
        each.socket.close()


class Child:
    """The other end of a channel, as a plain socket, and a process that ends when a test says so."""

    def __init__(self, status=None, after=0.0):
        ours, self.socket = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self.channel = ProcessChannel(stream, name="child process 1 (x)", wait=self.wait)
        self.status = status
        self.after = after

    async def wait(self):
        await trio.sleep(self.after)
        if self.status is None:
            await trio.sleep_forever()
        return self.status


async def ends(child):
    with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)) as caught:
        await child.channel.receive()
    assert "\n" not in str(caught.value)
    return type(caught.value).__name__, str(caught.value)


async def test_the_socket_ends_before_the_exit_status_is_there(child, autojump_clock):
    """A race: the status is what one wants to know, so it is waited for."""
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


async def test_exit_code_0_inside_a_packet_is_not(child):
    dying = child(0)
    dying.socket.send(b"\0\0\0\x05hel")
    dying.socket.close()
    assert await ends(dying) == (
        "BrokenResourceError",
        "the child process 1 (x) ended with exit code 0",
    )


async def test_a_child_that_closes_its_end_and_lives_on(child, autojump_clock):
    living = child()
    living.socket.close()
    assert await ends(living) == (
        "EndOfChannel",
        "the child process 1 (x) closed its end of the channel",
    )
    assert trio.current_time() == EXIT_TIME


async def test_a_child_that_breaks_off_and_lives_on(child, autojump_clock):
    living = child()
    living.socket.send(b"\0\0\0\x05hel")
    living.socket.close()
    with pytest.raises(trio.BrokenResourceError, match="ended inside a packet") as caught:
        await living.channel.receive()
    assert caught.value.__cause__ is None


async def test_packets_come_before_the_end(child):
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
async def test_a_write_that_fails_says_how_the_process_ended(child, method):
    dying = child(3)
    if method == "flush":
        while not dying.channel.unsent:
            assert dying.channel.send_nowait(bytes(100_000))
    dying.socket.close()
    with pytest.raises(trio.BrokenResourceError, match="ended with exit code 3"):
        await (dying.channel.flush() if method == "flush" else dying.channel.send(b"x"))


async def test_closed_while_it_waits_for_the_exit_status(child, autojump_clock, nursery):
    """A race: this end closes meanwhile, and whoever receives comes to an end all the same."""
    living = child()
    living.socket.close()
    nursery.start_soon(ends, living)
    await wait_all_tasks_blocked(0.005)
    await living.channel.aclose()
    assert living.channel.closed.is_set()
    with pytest.raises(trio.ClosedResourceError):
        await living.channel.receive()


async def test_shut_while_somebody_holds_the_other_end(child):
    held = child(-15)
    told = []

    async def receive():
        told.append(await ends(held))

    async with trio.open_nursery() as receiving:
        receiving.start_soon(receive)
        await wait_all_tasks_blocked()
        held.channel.shut()
    assert told == [("BrokenResourceError", "the child process 1 (x) was killed by SIGTERM")]
    await held.channel.aclose()
    held.channel.shut()  # it may come too late


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "ended with exit code 0"),
        (255, "ended with exit code 255"),
        (-11, "was killed by SIGSEGV"),
        (-40, "was killed by signal 40"),
    ],
)
def test_statuses(status, text):
    assert describe_status(status) == text


class Immortal:
    """A process that hangs inside the system, where no signal reaches it."""

    returncode = None

    def __init__(self):
        self.signals = []

    def terminate(self):
        self.signals.append((trio.current_time(), "SIGTERM"))

    def kill(self):
        self.signals.append((trio.current_time(), "SIGKILL"))

    async def wait(self):
        await trio.sleep_forever()


async def test_a_process_that_not_even_sigkill_ends_holds_nobody_up_for_ever(
    autojump_clock, caplog
):
    process = Immortal()
    ends = process_module._Ends(Patience(goodbye=2, terminate=3))
    await process_module._end(process, "x", ends)
    assert process.signals == [(2, "SIGTERM"), (5, "SIGKILL")]
    assert trio.current_time() == 5 + process_module.KILL_TIME
    assert caplog.messages == [
        "x did not end within 3 s of SIGTERM",
        "x has not ended within 5 s of SIGKILL",
    ]


async def test_a_hurry_shortens_the_time_and_never_lengthens_it(autojump_clock):
    for goodbye, hurry in ((10, 1), (1, 10)):
        started = trio.current_time()
        process = Immortal()
        ends = process_module._Ends(Patience(goodbye=goodbye, terminate=0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process_module._end, process, "x", ends)
            await wait_all_tasks_blocked()
            ends.hurry(hurry)
        assert process.signals[0] == (started + 1, "SIGTERM")
