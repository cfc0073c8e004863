"""TLS below a stream channel: contexts, the handshake, and one-line errors.

Streams are ``trio.SSLStream`` with ``https_compatible=False``. Closing sends an encrypted
``close_notify``, and a connection that ends without one is broken, not at its end. So an attacker
between the two programs cannot truncate the data without being noticed. A WebSocket has its own
Close frame for this purpose, and browsers and proxies omit ``close_notify``, so its streams are
``https_compatible``.
"""

from __future__ import annotations

import ssl

import trio

from trio_rpc.util.places import untangled

__all__ = [
    "client_context",
    "explain_broken",
    "is_shaking_hands",
    "plain_reason",
    "shake_hands",
    "wrap_client",
    "wrap_server",
]

REFUSED = "; it may have refused this end, perhaps because it requires a client certificate"


def client_context() -> ssl.SSLContext:
    """Return a context for TLS 1.2 or later that verifies servers with the system's CAs."""
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
    """Wrap a connection to ``host`` in the client side of TLS."""
    return trio.SSLStream(stream, context, server_hostname=host, https_compatible=https_compatible)


def wrap_server(
    stream: trio.SocketStream, context: ssl.SSLContext, *, https_compatible: bool = False
) -> trio.SSLStream[trio.SocketStream]:
    """Wrap an accepted connection in the server side of TLS."""
    return trio.SSLStream(stream, context, server_side=True, https_compatible=https_compatible)


async def shake_hands(stream: trio.abc.Stream) -> None:
    """Finish the handshake of a TLS stream. For any other stream, only execute a checkpoint.

    Raises ssl.SSLError with one line of text if the handshake fails.
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
    """Return whether this is a TLS stream whose handshake has not finished."""
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
    """Return an error of a stream with the text that Trio leaves to the error's cause.

    ``heard`` says whether any data has arrived over the stream. In TLS 1.3 a server checks the
    client's certificate after the client has finished its handshake, and ``trio.SSLStream`` closes
    without the alert that would give the reason. So the error at a client hints at this.
    """
    text = f"connection broken: {_reason(exc)}"
    if not heard and isinstance(stream, trio.SSLStream) and not stream.server_side:
        text += REFUSED
    return trio.BrokenResourceError(text)


def _reason(exc: trio.BrokenResourceError) -> str:
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLError):
        return plain_reason(cause)
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(exc) or "the peer has left"


def plain_reason(error: ssl.SSLError) -> str:
    """Return the reason of an error of TLS without the numbers of OpenSSL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "the peer left without closing TLS"
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if reason in ("wrong version number", "http request", "record layer failure"):
        return f"{reason}: the peer does not speak TLS"
    return reason
