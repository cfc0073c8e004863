"""The tables of states.py: every kind of message in every state, for sender and receiver."""

from __future__ import annotations

import itertools

import pytest
from helpers.protocol_pair import Pair, encoded, make_protocol, packets, received

from trio_rpc.errors import LocalProtocolError, RemoteProtocolError
from trio_rpc.protocol import states
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import (
    IN_PIECES,
    LEGAL,
    NEXT,
    UNWELCOME,
    Half,
    IncomingState,
    OutgoingState,
)
from trio_rpc.wire import messages as m

KINDS = m.Message.__args__
HELLO = m.Hello(
    m.PROTOCOL_VERSION,
    {
        "calls": 3,
        "notifications": 2,
        "max_message": 65536,
        "max_packet": 16384,
        "max_depth": 64,
        "max_nodes": 100_000,
    },
)
EXAMPLES = {
    m.Request: m.Request(5, "method", [], None, {"parent": 1}),
    m.Notification: m.Notification("method", [], None, {"parent": 1}),
    m.Reply: m.Reply(1, None),
    m.ReplyErr: m.ReplyErr(1, {"code": "raised"}),
    m.Cancel: m.Cancel(1),
    m.Hello: HELLO,
    m.Welcome: m.Welcome(),
    m.Goodbye: m.Goodbye("done"),
    m.Ping: m.Ping(7),
    m.Pong: m.Pong(7),
    m.Credit: m.Credit(1),
    m.Piece: m.Piece(b"x"),
    m.LastPiece: m.LastPiece(encoded(m.Reply(1, None))),
    m.Item: m.Item(1, None),
    m.EndOfItems: m.EndOfItems(1),
    m.Started: m.Started(1, None),
}
WITH_ITEMS = {"stream": [2, 100], "task_status": True}
TRAFFIC = set(KINDS) - {m.Hello, m.Welcome, m.Goodbye}
CALLS = {m.Request, m.Notification}


def legal(half: Half, other: Half, kind: type) -> bool:
    """Return whether docs/protocol.md allows the message; written differently from the tables."""
    if half is Half.ENDED:
        return False
    if half is Half.SILENT:
        return kind in (m.Hello, m.Goodbye)
    if kind in (m.Ping, m.Pong):
        return True
    if half is Half.GREETED:
        return kind in (m.Welcome, m.Goodbye)
    if kind is m.Goodbye:
        return half is Half.OPEN
    if kind not in TRAFFIC or other in (Half.SILENT, Half.GREETED):
        return False
    return other is not Half.ENDED or kind not in CALLS


CASES = list(itertools.product(Half, Half, KINDS))


def put_into(protocol: Protocol, ours: Half, theirs: Half) -> Protocol:
    """Set the states, after a call with items and a Notification in each direction."""
    protocol.hello()
    received(protocol, HELLO)
    protocol.welcome()
    received(protocol, m.Welcome())
    protocol.request("method", [], None, WITH_ITEMS)
    protocol.notify("method", [])
    call = m.Request(1, "method", [], None, WITH_ITEMS)
    received(protocol, call, m.Notification("method", []), m.Item(1, None))
    protocol.item(1, None)
    packets(protocol)
    protocol.ours, protocol.theirs = ours, theirs
    return protocol


def send(protocol: Protocol, kind: type) -> None:
    """Send a message of this kind with the method for it."""
    verbs = {
        m.Request: lambda: protocol.request("method", [], None, {"parent": 1}),
        m.Notification: lambda: protocol.notify("method", [], None, {"parent": 1}),
        m.Reply: lambda: protocol.reply(1, None),
        m.ReplyErr: lambda: protocol.reply_error(1, {}),
        m.Cancel: lambda: protocol.cancel(1),
        m.Hello: protocol.hello,
        m.Welcome: protocol.welcome,
        m.Goodbye: lambda: protocol.goodbye("done"),
        m.Ping: lambda: protocol.ping(),
        m.Credit: lambda: protocol.grant_notifications(1),
        m.Item: lambda: protocol.item(1, None),
        m.EndOfItems: lambda: protocol.end_items(1),
        m.Started: lambda: protocol.started(1, None),
    }
    verbs[kind]()


NO_VERB = {m.Pong, m.Piece, m.LastPiece}


@pytest.mark.parametrize(("ours", "theirs", "kind"), CASES)
def test_each_message_can_be_sent_only_in_its_states(ours, theirs, kind):
    if kind in NO_VERB:
        return
    protocol = put_into(make_protocol(), ours, theirs)
    may = legal(ours, theirs, kind)
    if kind in CALLS and (Half.LEAVING in (ours, theirs)):
        may = may and 1 in protocol.incoming
    if may:
        send(protocol, kind)
        assert protocol.ours is NEXT.get((ours, kind), ours)
        assert protocol.has_data
    else:
        before = (dict(protocol.outgoing), dict(protocol.incoming), protocol.notification_credit)
        with pytest.raises(LocalProtocolError):
            send(protocol, kind)
        assert protocol.ours is ours
        assert not protocol.has_data
        assert before == (protocol.outgoing, protocol.incoming, protocol.notification_credit)
    assert protocol.theirs is theirs


@pytest.mark.parametrize(("ours", "theirs", "kind"), CASES)
def test_each_message_is_accepted_only_in_the_same_states(ours, theirs, kind):
    protocol = put_into(make_protocol(), ours, theirs)
    if legal(theirs, ours, kind):
        received(protocol, EXAMPLES[kind])
        assert protocol.theirs is NEXT.get((theirs, kind), theirs)
    else:
        with pytest.raises(RemoteProtocolError):
            received(protocol, EXAMPLES[kind])
        assert protocol.theirs is Half.ENDED
    assert protocol.ours is ours


@pytest.mark.parametrize("kind", sorted(IN_PIECES, key=lambda kind: kind.TYPE))
@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(Half, Half)))
def test_a_message_in_pieces_is_legal_where_a_whole_one_is(ours, theirs, kind):
    protocol = put_into(make_protocol(), ours, theirs)
    pieces = m.LastPiece(encoded(EXAMPLES[kind]))
    if legal(theirs, ours, kind):
        received(protocol, pieces)
    else:
        with pytest.raises(RemoteProtocolError):
            received(protocol, pieces)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - IN_PIECES, key=lambda kind: kind.TYPE))
def test_other_messages_must_not_be_sent_in_pieces(kind):
    pair = Pair()
    with pytest.raises(RemoteProtocolError, match="must not come in pieces"):
        received(pair.a, m.LastPiece(encoded(EXAMPLES[kind])))


def test_the_tables_cover_every_state_and_only_known_messages():
    assert set(LEGAL) == set(UNWELCOME) == set(Half)
    for half, kinds in {**LEGAL}.items():
        assert kinds <= set(KINDS)
        assert UNWELCOME[half] <= set(KINDS)
    for half, kind in NEXT:
        assert kind in LEGAL[half]
    moves = {(half, after) for (half, _), after in NEXT.items()}
    assert moves == {
        (Half.SILENT, Half.GREETED),
        (Half.SILENT, Half.ENDED),
        (Half.GREETED, Half.OPEN),
        (Half.GREETED, Half.ENDED),
        (Half.OPEN, Half.LEAVING),
    }


def test_the_docstring_of_states_names_every_state():
    theory = states.__doc__
    for state in (*Half, *OutgoingState, *IncomingState):
        assert state.name in theory or state.name in ("OPEN", "ENDED", "GREETED", "LEAVING")


def test_both_halves_pass_through_the_states_of_a_whole_session():
    pair = Pair(opened=False)
    pair.assert_halves(Half.SILENT, Half.SILENT)
    pair.a.hello()
    pair.deliver(pair.a)
    pair.assert_halves(Half.GREETED, Half.SILENT)
    pair.b.hello()
    pair.b.welcome()
    pair.deliver(pair.b)
    pair.assert_halves(Half.GREETED, Half.OPEN)
    pair.a.welcome()
    pair.deliver(pair.a)
    pair.assert_halves(Half.OPEN, Half.OPEN)
    pair.b.goodbye("done")
    assert pair.deliver(pair.b) == [m.Goodbye("done")]
    pair.assert_halves(Half.OPEN, Half.LEAVING)
    pair.a.goodbye("done")
    pair.deliver(pair.a)
    pair.assert_halves(Half.LEAVING, Half.LEAVING)
    for end in (pair.a, pair.b):
        end.end()
    pair.assert_halves(Half.ENDED, Half.ENDED)


@pytest.mark.parametrize("greeted", [False, True])
def test_a_goodbye_before_welcome_ends_the_half(greeted):
    pair = Pair(opened=False)
    pair.a.hello()
    pair.deliver(pair.a)
    if greeted:
        pair.b.hello()
    pair.b.goodbye("refused", "the credentials are wrong")
    assert pair.deliver(pair.b)[-1] == m.Goodbye("refused", "the credentials are wrong")
    pair.assert_halves(Half.GREETED, Half.ENDED)


def test_no_call_can_be_made_to_an_end_that_has_refused():
    pair = Pair(opened=False)
    pair.a.hello()
    pair.b.hello()
    pair.settle()
    pair.a.welcome()
    pair.b.goodbye("refused")
    pair.settle()
    pair.assert_halves(Half.OPEN, Half.ENDED)
    with pytest.raises(LocalProtocolError):
        pair.a.request("method", [])
    with pytest.raises(LocalProtocolError):
        pair.a.notify("method", [])
    assert not pair.a.has_data
    pair.assert_no_calls()


def test_a_call_before_welcome_has_arrived_is_illegal():
    pair = Pair(opened=False)
    pair.a.hello()
    pair.b.hello()
    pair.settle()
    pair.a.welcome()
    with pytest.raises(LocalProtocolError, match="receiver is greeted"):
        pair.a.request("method", [])
    pair.settle()
    with pytest.raises(RemoteProtocolError, match="receiver is greeted"):
        received(pair.b, m.Request(1, "method", []))


def test_after_the_end_no_message_is_sent_received_or_kept():
    pair = Pair()
    pair.call()
    pair.call(pair.b)
    pair.a.request("method", [b"x" * 30_000])
    pair.a.next_packet()
    received(pair.a, m.Piece(b"x"))
    pair.a.end()
    assert pair.a.outgoing == pair.a.incoming == {}
    assert pair.a.next_packet() is None
    assert pair.a.bytes_waiting == 0
    with pytest.raises(RemoteProtocolError):
        received(pair.a, m.Ping(1))
    with pytest.raises(LocalProtocolError):
        pair.a.ping()
