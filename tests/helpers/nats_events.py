"""The events of the protocol of NATS as bytes, for both directions."""

from __future__ import annotations

from trio_rpc.nats import parser as p


def encode(event):
    """Encode an event of either direction."""
    match event:
        case p.Msg(subject, sid, reply, data, headers):
            return p.encode_msg(subject, sid, data, reply, headers)
        case p.Pub(subject, reply, data, headers):
            return p.encode_pub(subject, data, reply, headers)
        case p.Sub(subject, queue, sid):
            return p.encode_sub(subject, sid, queue)
        case p.Unsub(sid, most):
            return p.encode_unsub(sid, most)
        case p.Info(facts):
            return p.encode_info(facts)
        case p.Connect(options):
            return p.encode_connect(options)
        case p.Ping():
            return p.PING
        case p.Pong():
            return p.PONG
        case p.Ok():
            return b"+OK\r\n"
        case p.Err(text):
            return f"-ERR '{text}'\r\n".encode()
    raise AssertionError(event)
