"""TLS below a stream channel: contexts, the handshake, and errors in one line.

Streams are ``trio.SSLStream`` with ``https_compatible=False``: closing says so under encryption
(``close_notify``), and an end without that word is a broken connection, not an end of channel.
Nobody between the two programs can cut the conversation short and have it pass for complete.
A WebSocket has a Close frame of its own for that, and browsers and proxies leave out the word of
TLS, so its streams are ``https_compatible``.
"""

from __future__ import annotations

import ssl

import trio

from trio_rpc.util.places import untangled

__all__ = [
    "client_context",
    "explain_broken",
    "is_shaking_hands",
    "shake_hands",
    "wrap_client",
    "wrap_server",
]

REFUSED = "; it may have refused this end, for want of a client certificate perhaps"


def client_context() -> ssl.SSLContext:
    """Make a context that verifies the server by the system's authorities; TLS 1.2 or later."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def wrap_client(
    stream: trio.SocketStream,
    context: ssl.SSLContext,
    host: str,
    *,
    https_compatible: bool = False,
) -> trio.SSLStream[trio.SocketStream]:
    """Put the client's side of TLS over a connection to ``host``."""
    return trio.SSLStream(stream, context, server_hostname=host, https_compatible=https_compatible)


def wrap_server(
    stream: trio.SocketStream, context: ssl.SSLContext, *, https_compatible: bool = False
) -> trio.SSLStream[trio.SocketStream]:
    """Put the server's side of TLS over a connection that was accepted."""
    return trio.SSLStream(stream, context, server_side=True, https_compatible=https_compatible)


async def shake_hands(stream: trio.abc.Stream) -> None:
    """Finish the handshake of a TLS stream; for another stream, only a checkpoint.

    Raises ssl.SSLError with one line of text when it fails.
    """
    if not isinstance(stream, trio.SSLStream):
        await trio.lowlevel.checkpoint()
        return
    try:
        with untangled():
            await stream.do_handshake()
    except trio.BrokenResourceError as exc:
        cause = exc.__cause__
        kind = type(cause) if isinstance(cause, ssl.SSLError) else ssl.SSLError
        hint = REFUSED if isinstance(cause, ssl.SSLEOFError) and not stream.server_side else ""
        raise kind(1, f"TLS handshake failed: {_reason(exc)}{hint}") from cause


def is_shaking_hands(stream: trio.abc.Stream) -> bool:
    """Tell whether the handshake of a TLS stream is still to be finished."""
    if not isinstance(stream, trio.SSLStream):
        return False
    try:
        stream.version()
    except trio.NeedHandshakeError:
        return True
    return False


def explain_broken(
    stream: trio.abc.Stream, exc: trio.BrokenResourceError, *, heard: bool
) -> trio.BrokenResourceError:
    """Give an error of a stream the text that Trio leaves to its cause.

    ``heard`` tells whether anything has come over it. In TLS 1.3 a server looks at a client's
    certificate when the client has long finished its handshake, and ``trio.SSLStream`` closes
    without the alert that would say what was wrong with it; so a client is given the hint.
    """
    text = f"connection broken: {_reason(exc)}"
    if not heard and isinstance(stream, trio.SSLStream) and not stream.server_side:
        text += REFUSED
    return trio.BrokenResourceError(text)


def _reason(exc: trio.BrokenResourceError) -> str:
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {cause.verify_message}"
    if isinstance(cause, ssl.SSLEOFError):
        return "the peer went away without closing TLS"
    if isinstance(cause, ssl.SSLError):
        return _plain(cause)
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(exc) or "the peer has gone"


def _plain(error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if reason in ("wrong version number", "http request", "record layer failure"):
        return f"{reason}: the peer does not speak TLS"
    return reason
