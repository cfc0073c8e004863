"""The exceptions that trio_rpc itself raises.

::

    RpcError                            .fate says whether the handler ran (law 15)
    ├── ProtocolError
    │   ├── LocalProtocolError          this program did something the protocol does not allow
    │   └── RemoteProtocolError         the peer sent something illegal; its session has ended
    ├── CallError                       one call failed; the session continues
    │   ├── RemoteError                 the handler raised an undeclared exception
    │   ├── MethodNotFound              no such service or method, or one of another kind
    │   ├── InvalidArguments            the arguments do not fit; the handler did not run
    │   ├── Overloaded                  refused: no room for another call, or nested too deeply
    │   ├── Unavailable                 refused: the other end is closing
    │   └── RemoteCancelled             the handler was cancelled, but not by this caller
    ├── EncodeError                     a value cannot be sent; nothing was sent
    ├── DecodeError                     bytes or a value from the peer cannot be understood
    ├── Refused                         the peer did not open the session or the channel
    ├── SessionClosed                   this end closed it (also trio.ClosedResourceError)
    └── SessionBroken                   peer or network ended it (also trio.BrokenResourceError)

A declared exception of a handler arrives as itself and is not in this tree. Its ``__cause__`` is
a :class:`RemoteTraceback` if the serving side shows tracebacks.
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
    """Whether the handler of a failed call ran (law 15)."""

    NOT_STARTED = "not started"
    """The handler never ran: the call is safe to repeat."""
    STOPPED = "stopped"
    """The handler began, and has ended."""
    UNKNOWN = "unknown"
    """It is unknown whether the handler ran, or is still running."""


class RpcError(Exception):
    """The base class of the errors that this library raises.

    Args:
        *args: the text.
        fate: the fate of the call (default: the fate of the class).
    """

    fate: Fate = Fate.UNKNOWN
    """Whether the handler of the failed call ran."""

    def __init__(self, *args: object, fate: Fate | None = None) -> None:
        super().__init__(*args)
        if fate is not None:
            self.fate = fate


class ProtocolError(RpcError):
    """One end violated docs/protocol.md."""


class LocalProtocolError(ProtocolError):
    """This program did something that the protocol does not allow; nothing was sent."""

    fate = Fate.NOT_STARTED


class RemoteProtocolError(ProtocolError):
    """The peer sent something illegal, which ended its session (law 14)."""


class CallError(RpcError):
    """One call failed; its session continues."""


class RemoteError(CallError):
    """The handler raised an exception that its method does not declare.

    Attributes:
        type_name: the name of the exception's class at the other end, for people.
        message: its text, as far as the serving side shows it. If the exception was a RemoteError
            itself, because its handler's own call had failed, the text names the first exception.
        notes: the notes added with ``add_note``.
        remote_traceback: the traceback as text, or ``""`` if the serving side does not show it.
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
        if self.message and self.type_name == _REMOTE_ERROR:
            return self.message  # it has the name of the class that was raised first
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


_REMOTE_ERROR = f"{RemoteError.__module__}.{RemoteError.__qualname__}"


class MethodNotFound(CallError):
    """The other end has no such service or method, or one of another kind."""

    fate = Fate.NOT_STARTED


class InvalidArguments(CallError):
    """The arguments do not fit the method's annotations; the handler did not run.

    Args:
        message: the text.
        parameter: see below.

    Attributes:
        parameter: the name of the parameter that does not fit, or ``""``.
    """

    fate = Fate.NOT_STARTED

    def __init__(self, message: str, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class Overloaded(CallError):
    """The call was refused because there is no room for it.

    The handler did not run, unless ``fate`` says that it has ended: then its result was dropped, or
    it has raised this itself.

    Args:
        *args: the text.
        fate: the fate of the call.
        retry_after: see below.

    Attributes:
        retry_after: seconds after which the call may be repeated, or None if the end that refused
            it has not said so.
    """

    fate = Fate.NOT_STARTED

    def __init__(
        self, *args: object, fate: Fate | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(*args, fate=fate)
        self.retry_after = retry_after


class Unavailable(CallError):
    """The call was refused because the other end is closing; the handler did not run."""

    fate = Fate.NOT_STARTED


class RemoteCancelled(CallError):
    """The handler was cancelled at the other end, but not by this caller."""

    fate = Fate.STOPPED


class EncodeError(RpcError):
    """A value cannot be sent. Nothing was sent (law 14)."""

    fate = Fate.NOT_STARTED


class DecodeError(RpcError):
    """Bytes or a value from the peer cannot be understood: malformed, or of another type."""


class Refused(RpcError):
    """The session was not opened: another version, wrong credentials, or limits that do not fit.

    An ``authenticate`` function raises it to refuse a peer; its text is sent to the peer. The
    handler of a forwarded channel raises it to refuse the channel.

    Args:
        *args: the text.
        fate: the fate of the call.
        retry_after: see below.

    Attributes:
        retry_after: None if another try would be refused as well. Otherwise the other end has no
            room now, and may accept a try after this many seconds. If ``authenticate`` raises it
            with a ``retry_after``, the peer learns that it may try again, and gets 1 second.
    """

    fate = Fate.NOT_STARTED

    def __init__(
        self, *args: object, fate: Fate | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(*args, fate=fate)
        self.retry_after = retry_after


class SessionClosed(RpcError, trio.ClosedResourceError):
    """This end closed the session."""


class SessionBroken(RpcError, trio.BrokenResourceError):
    """The other end or the network ended the session; ``__cause__`` says why, if that is known.

    Args:
        *args: the text.
        fate: the fate of the call.
        orderly: see below.

    Attributes:
        orderly: True if the other end left with a Goodbye; False if the session was lost.
    """

    def __init__(self, *args: object, fate: Fate | None = None, orderly: bool = False) -> None:
        super().__init__(*args, fate=fate)
        self.orderly = orderly


class RemoteTraceback(Exception):
    """Carries a handler's traceback as the ``__cause__`` of the exception at its caller.

    Attributes:
        text: the traceback, formatted at the other end.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text}"
