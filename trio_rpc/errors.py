"""Everything trio_rpc raises on its own account.

::

    RpcError                            .fate says what became of the call (law 15)
    ├── ProtocolError
    │   ├── LocalProtocolError          we asked for something the protocol does not allow
    │   └── RemoteProtocolError         the peer sent something illegal; its session has ended
    ├── CallError                       one call failed, the session is fine
    │   ├── RemoteError                 the handler raised something it had not declared
    │   ├── MethodNotFound              no such service or method, or not of that kind
    │   ├── InvalidArguments            the arguments do not fit; the handler did not run
    │   ├── Overloaded                  refused: no room for another call, or nested too deeply
    │   ├── Unavailable                 refused: the other end is closing
    │   └── RemoteCancelled             the handler was cancelled, and not by us
    ├── EncodeError                     a value cannot be sent; nothing was
    ├── DecodeError                     bytes or a value that arrived cannot be understood
    ├── Refused                         the other end would not open the session, or the channel
    ├── SessionClosed                   we closed it (also a trio.ClosedResourceError)
    └── SessionBroken                   they or the network did (also a trio.BrokenResourceError)

What a handler raises and has declared arrives as itself and is not in this tree;
:class:`RemoteTraceback` is its ``__cause__`` where the serving side shows tracebacks.
"""

from __future__ import annotations

import enum

import trio

__all__ = [
    "CallError",
    "DecodeError",
    "EncodeError",
    "Fate",
    "InvalidArguments",
    "LocalProtocolError",
    "MethodNotFound",
    "Overloaded",
    "ProtocolError",
    "Refused",
    "RemoteCancelled",
    "RemoteError",
    "RemoteProtocolError",
    "RemoteTraceback",
    "RpcError",
    "SessionBroken",
    "SessionClosed",
    "Unavailable",
]


class Fate(enum.Enum):
    """What became of the handler of a call that failed (law 15)."""

    NOT_STARTED = "not started"
    """The handler never ran: the call is safe to repeat."""
    STOPPED = "stopped"
    """The handler ran, and has ended."""
    UNKNOWN = "unknown"
    """Nobody can say whether the handler ran, or whether it is still running."""


class RpcError(Exception):
    """The base of every error this library raises on its own account."""

    fate: Fate = Fate.UNKNOWN

    def __init__(self, *args: object, fate: Fate | None = None) -> None:
        super().__init__(*args)
        if fate is not None:
            self.fate = fate


class ProtocolError(RpcError):
    """Somebody broke the rules of docs/protocol.md."""


class LocalProtocolError(ProtocolError):
    """This program asked for something the protocol does not allow; nothing was sent."""

    fate = Fate.NOT_STARTED


class RemoteProtocolError(ProtocolError):
    """The peer sent something illegal, and its session ended for it (law 14)."""


class CallError(RpcError):
    """One call failed; the session it was made on is fine."""


class RemoteError(CallError):
    """The handler raised an exception that its method does not declare.

    Attributes:
        type_name: the name of the exception's class at the other end, for people.
        message: its text, as far as the serving side shows it.
        notes: what had been added with ``add_note``.
        remote_traceback: the traceback as text, or ``""`` where the serving side keeps it.
    """

    fate = Fate.STOPPED

    def __init__(
        self,
        type_name: str,
        message: str,
        notes: tuple[str, ...] = (),
        remote_traceback: str = "",
    ) -> None:
        super().__init__(type_name, message, notes, remote_traceback)
        self.type_name = type_name
        self.message = message
        self.notes = notes
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class MethodNotFound(CallError):
    """The other end has no such service or method, or has it as another kind."""

    fate = Fate.NOT_STARTED


class InvalidArguments(CallError):
    """The arguments do not fit the method's annotations; the handler did not run.

    Attributes:
        parameter: the name of the parameter that is to blame, or ``""``.
    """

    fate = Fate.NOT_STARTED

    def __init__(self, message: str, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class Overloaded(CallError):
    """The call was refused because there is no room for it; the handler did not run."""

    fate = Fate.NOT_STARTED


class Unavailable(CallError):
    """The call was refused because the other end is closing; the handler did not run."""

    fate = Fate.NOT_STARTED


class RemoteCancelled(CallError):
    """The handler was cancelled at the other end, and not at this caller's request."""

    fate = Fate.STOPPED


class EncodeError(RpcError):
    """A value cannot be sent. It was raised before anything was (law 14)."""

    fate = Fate.NOT_STARTED


class DecodeError(RpcError):
    """What arrived cannot be understood: malformed bytes, or a result of another type."""


class Refused(RpcError):
    """The session was not opened: another version, wrong credentials, or limits that do not fit.

    An ``authenticate`` function raises it, with the text for the other end, to turn a peer away; so
    does the handler of a forwarded channel, which then is not opened.
    """

    fate = Fate.NOT_STARTED


class SessionClosed(RpcError, trio.ClosedResourceError):
    """This end closed the session."""


class SessionBroken(RpcError, trio.BrokenResourceError):
    """The other end or the network ended the session; ``__cause__`` says why where it is known.

    Attributes:
        orderly: True if the other end left with a Goodbye; False if the session was lost, and ``__cause__`` tells how.
    """

    def __init__(self, *args: object, fate: Fate | None = None, orderly: bool = False) -> None:
        super().__init__(*args, fate=fate)
        self.orderly = orderly


class RemoteTraceback(Exception):
    """Carries a handler's traceback as the ``__cause__`` of what its caller gets.

    Attributes:
        text: the traceback, formatted at the other end.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text}"
