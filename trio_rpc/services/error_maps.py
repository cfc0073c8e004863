"""Converting exceptions to error maps and back. An error map is the error of a ReplyErr.

An error map has string keys: always ``code`` and ``message``, and the others where they apply. Code
"raised" is an exception of the handler. Every other code is a refusal or the end of a call,
reported by the library itself. An exception that a handler raises always has the code "raised",
even if it is one of the library's own errors, because that error was about some other call.

Declared exceptions and a fixed list of built-in ones are rebuilt (see ``exceptions.py``). The class
comes from the declaration or from the list, never from the wire. The wire can only choose among
them, and everything else becomes a RemoteError. Parts that cannot be sent are named in a note.

Texts are cut, and groups are bounded in breadth and depth. So an error map is small whatever was
raised, and can always be sent: values that the wire cannot carry are sent as their ``repr``.
"""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

from trio_rpc.errors import (
    CallError,
    DecodeError,
    EncodeError,
    Fate,
    InvalidArguments,
    MethodNotFound,
    Overloaded,
    RemoteCancelled,
    RemoteError,
    RemoteTraceback,
    RpcError,
    Unavailable,
)
from trio_rpc.services.converters import WireRead
from trio_rpc.services.costs import MOST, Read
from trio_rpc.services.decorators import wire_name
from trio_rpc.services.exceptions import Plan, plan_of
from trio_rpc.util.numbers import read_delay
from trio_rpc.util.raised import set_cause, set_notes, text_of
from trio_rpc.util.text import clip, quoted
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.messages import Notification
from trio_rpc.wire.to_msgpack import keeps_its_type

__all__ = [
    "BUILTINS",
    "Detail",
    "ErrorMap",
    "check_detail",
    "from_error",
    "not_started",
    "refusal",
    "set_fate",
    "to_error",
]

Detail: TypeAlias = Literal["none", "message", "traceback"]
ErrorMap: TypeAlias = dict[str, Any]

MAX_TEXT: Final = 10_000
MAX_TEXTS: Final = 200_000  # all texts of one map together; after that each is cut to CUT_TEXT
CUT_TEXT: Final = 100
MAX_NAME: Final = 200
MAX_TRACEBACK: Final = 50_000
MAX_NOTES: Final = 20
MAX_ARGS: Final = 20
MAX_LEAVES: Final = 100
MAX_DEPTH: Final = 16

_LISTED: Final[tuple[type[Exception], ...]] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BlockingIOError,
    BrokenPipeError,
    BufferError,
    ChildProcessError,
    ConnectionAbortedError,
    ConnectionError,
    ConnectionRefusedError,
    ConnectionResetError,
    EOFError,
    FileExistsError,
    FileNotFoundError,
    FloatingPointError,
    ImportError,
    IndexError,
    InterruptedError,
    IsADirectoryError,
    KeyError,
    LookupError,
    ModuleNotFoundError,
    NameError,
    NotADirectoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    PermissionError,
    ProcessLookupError,
    RecursionError,
    RuntimeError,
    TimeoutError,
    TypeError,
    UnboundLocalError,
    UnicodeDecodeError,
    UnicodeEncodeError,
    UnicodeError,
    UnicodeTranslateError,
    ValueError,
    ZeroDivisionError,
)
BUILTINS: Final[Mapping[str, type[Exception]]] = {wire_name(cls): cls for cls in _LISTED}
"""The exceptions that need no declaration, by the names under which they are sent."""

_CODES: Final[dict[type[CallError], str]] = {
    MethodNotFound: "method_not_found",
    InvalidArguments: "invalid_arguments",
    Overloaded: "overloaded",
    Unavailable: "unavailable",
}
_REFUSALS: Final = {code: cls for cls, code in _CODES.items()}


def check_detail(detail: object) -> None:
    """Raise ValueError for an unknown ``detail``: it would tell peers more than intended."""
    if detail not in get_args(Detail):
        raise ValueError(f"error_detail must be 'none', 'message' or 'traceback', not {detail!r}")


def to_error(
    exc: BaseException,
    raises: Iterable[type[Exception]] = (),
    detail: Detail = "message",
    encode: Callable[[Notification], bytes] | None = None,
) -> ErrorMap:
    """Return the error map of an exception that a handler raised.

    Args:
        exc: the exception, or a group of them.
        raises: the classes that its method declares.
        detail: how much is sent of an undeclared exception. "none" sends neither its class nor its
            text, "message" sends both, and "traceback" also sends its traceback.
        encode: the codec's encode, to find out which arguments of an exception can be sent. The
            default is a codec without users' types.

    Never raises, and never returns a map that cannot be encoded.
    """
    try:
        return _Writer(tuple(raises), detail, encode or Codec().encode).whole(exc)
    except Exception:  # noqa: BLE001 - an exception's own attributes may be code that fails
        return _bare(detail, type(exc))


def refusal(exc: CallError) -> ErrorMap:
    """Return the error map of a call that the library itself ends, whose handler raised nothing.

    Accepts MethodNotFound, InvalidArguments, Overloaded, Unavailable and RemoteCancelled. A
    RemoteError has the code "internal".
    """
    message = clip(text_of(exc), MAX_TEXT)
    if isinstance(exc, RemoteCancelled):
        started = exc.fate is not Fate.NOT_STARTED
        return {"code": "cancelled", "message": message, "started": started}
    error: ErrorMap = {"code": _code_of(exc) or "internal", "message": message}
    if isinstance(exc, Overloaded):
        retry_after = read_delay(exc.retry_after, None)
        if retry_after is not None:
            error["retry_after"] = retry_after
    if isinstance(exc, InvalidArguments) and exc.parameter:
        error["parameter"] = clip(exc.parameter, 100)
    return error


def not_started(
    exc: BaseException, raises: tuple[type[Exception], ...], detail: Detail
) -> ErrorMap:
    """Return the error map of an exception that a filter raised before the handler began.

    A refusal arrives as an exception of this library, such as Overloaded, or as an exception of its
    own class if the method declares that class.
    """
    if isinstance(exc, CallError) and not isinstance(exc, raises) and _code_of(exc) is not None:
        return {**refusal(exc), **({"started": False} if isinstance(exc, RemoteCancelled) else {})}
    return {**to_error(exc, raises, detail), "started": False}


def _code_of(exc: CallError) -> str | None:
    if isinstance(exc, RemoteCancelled):
        return "cancelled"
    return next((code for cls, code in _CODES.items() if isinstance(exc, cls)), None)


def set_fate(exc: BaseException, fate: Fate) -> None:
    """Record the fate of a call in an error of this library, or in each such error of a group."""
    if isinstance(exc, RpcError):
        exc.fate = fate
    elif isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            set_fate(inner, fate)


def from_error(
    error: Mapping[str, Any],
    raises: Mapping[str, type[Exception]] | None = None,
    problem: str | None = None,
    most: int = MOST,
) -> Exception:
    """Return the exception that a call ends with, from the error map that arrived.

    Args:
        error: the map.
        raises: the classes that the interface declares, by :func:`wire_name`.
        problem: why some value in the map could not be read, if there is one.
        most: the units that converting its values may cost: ``Limits.max_nodes`` of this end.

    Raises:
        DecodeError: the map is malformed.
    """
    return _Reader(raises or {}, problem, WireRead(most)).whole(error)


class _Writer:
    """Builds one error map, and counts the leaves of its groups."""

    def __init__(
        self,
        raises: tuple[type[Exception], ...],
        detail: Detail,
        encode: Callable[[Notification], bytes],
    ) -> None:
        self._raises = raises
        self._detail = detail
        self._encode = encode
        self._leaves = 0
        self._room = MAX_TEXTS

    def whole(self, exc: BaseException) -> ErrorMap:
        error = self._write(exc, 1)
        if self._detail == "traceback":
            error["traceback"] = _traceback_of(exc)
        return error

    def _write(self, exc: BaseException, depth: int) -> ErrorMap:
        if isinstance(exc, BaseExceptionGroup) and depth < MAX_DEPTH:
            return self._write_group(exc, depth)
        self._leaves += 1
        declared = self._declared(exc)
        if declared is None:
            return self._write_undeclared(exc)
        plan = plan_of(declared)
        args, replaced = self._sendable_args(exc)
        text = text_of(exc)
        error = self._raised_map(wire_name(declared), text)
        error["args"] = args
        notes = _notes_of(exc)
        state, lost = plan.read(exc)
        if not plan.is_bare:
            error["fields"] = self._sendable_fields(plan, state, lost)
        lost += [
            f"the class of argument {index + 1}"
            for index, value in enumerate(args)
            if not plan.is_typed_argument(index) and not keeps_its_type(value)
        ]
        if len(exc.args) > MAX_ARGS:
            lost.append(f"arguments {MAX_ARGS + 1} to {len(exc.args)}")
        lost += [
            f"the lone surrogates of argument {index + 1}"
            for index, value in enumerate(exc.args[:MAX_ARGS])
            if type(value) is str and _without_surrogates(value) != value
        ]
        if lost:
            shown = [*map(str, lost[:MAX_ARGS])]
            more = [f"and {len(lost) - MAX_ARGS} more"] if len(lost) > MAX_ARGS else []
            notes.insert(0, f"lost on its way: {', '.join([*shown, *more])}")
        if declared is not type(exc):
            notes.insert(0, _raised_as(exc, declared, text))
        if replaced:
            notes.insert(0, "some arguments could not be sent and are shown as text")
        return self._with_notes(error, notes)

    def _write_group(self, group: BaseExceptionGroup[BaseException], depth: int) -> ErrorMap:
        notes = _notes_of(group)
        if type(group) not in (ExceptionGroup, BaseExceptionGroup):
            notes.insert(0, f"raised as {_full_name(type(group))}")
        errors: list[ErrorMap] = []
        for inner in group.exceptions:
            if self._leaves >= MAX_LEAVES:
                notes.insert(0, f"{len(group.exceptions) - len(errors)} more were left out")
                break
            errors.append(self._write(inner, depth + 1))
        message = group.message if self._detail != "none" else "several errors"
        error = self._raised_map("builtins.ExceptionGroup", message)
        error["errors"] = errors
        return self._with_notes(error, notes if self._detail != "none" else [])

    def _write_undeclared(self, exc: BaseException) -> ErrorMap:
        if self._detail == "none":
            return _bare(self._detail, type(exc))
        error = self._raised_map(_full_name(type(exc)), text_of(exc))
        return self._with_notes(error, _notes_of(exc))

    def _raised_map(self, name: str, message: str) -> ErrorMap:
        return {"code": "raised", "type": clip(name, MAX_NAME), "message": self._cut(message)}

    def _with_notes(self, error: ErrorMap, notes: list[str]) -> ErrorMap:
        if len(notes) > MAX_NOTES:
            count = len(notes) - MAX_NOTES + 1
            notes = [*notes[: MAX_NOTES - 1], f"{count} more notes were left out"]
        if notes:
            error["notes"] = [self._cut(note) for note in notes]
        return error

    def _cut(self, text: str) -> str:
        text = clip(text, MAX_TEXT if self._room > MAX_TEXT else CUT_TEXT)
        self._room -= len(text)
        return text

    def _declared(self, exc: BaseException) -> type[Exception] | None:
        """Return the exception's class if declared or a listed built-in, or its declared base."""
        own = type(exc)
        is_listed = BUILTINS.get(wire_name(own)) is own and self._detail != "none"
        if own in self._raises or (is_listed and issubclass(own, Exception)):
            return own
        return next((cls for cls in own.__mro__ if cls in self._raises), None)

    def _sendable_args(self, exc: BaseException) -> tuple[list[Any], bool]:
        """Return the exception's arguments, and whether some had to be replaced by text."""
        args, replaced = [], False
        for value in exc.args[:MAX_ARGS]:
            if type(value) is str:
                args.append(self._cut(value))
            elif self._fits(value):
                args.append(value)
            else:
                args.append(self._cut(_repr_of(value)))
                replaced = True
        return args, replaced

    def _sendable_fields(
        self, plan: Plan, state: dict[str, Any], lost: list[str]
    ) -> dict[str, Any]:
        """Return the attributes that can be sent. The names of the others are added to ``lost``."""
        fields = {}
        for name, value in state.items():
            if type(value) is str and len(value) > MAX_TEXT:
                lost.append(name)
            elif (plan.is_typed(name) or keeps_its_type(value)) and self._fits(value):
                fields[name] = value
            elif (
                plan.is_needed(name)
                and type(value) is str
                and self._fits(_without_surrogates(value))
            ):
                fields[name] = _without_surrogates(value)
                lost.append(f"the lone surrogates of {name}")
            else:
                lost.append(name)
        return fields

    def _fits(self, value: Any) -> bool:
        try:
            size = len(self._encode(Notification("", [value])))
        except EncodeError:
            return False
        if self._room > size:
            self._room -= size
            return True
        return False


class _Reader:
    """Builds one exception from an error map, and counts the leaves of its groups."""

    def __init__(
        self, raises: Mapping[str, type[Exception]], problem: str | None, read: Read
    ) -> None:
        self._raises = raises
        self._read = read
        self._problem = problem
        self._leaves = 0

    def whole(self, error: Mapping[str, Any]) -> Exception:
        code, message = _text(error, "code"), _text(error, "message")
        if code == "raised":
            exc = self._raised(error, 1)
        elif code in ("cancelled", "deadline"):
            exc = RemoteCancelled(message)
        elif code == "invalid_arguments":
            exc = InvalidArguments(message, _text(error, "parameter", ""))
        elif code in _REFUSALS:
            exc = _REFUSALS[code](message)
            if isinstance(exc, Overloaded):
                exc.retry_after = read_delay(error.get("retry_after"), None)
        else:  # "internal", or a code of a later version
            exc = RemoteError(code, message)
        started = _has_started(error, code)
        if started is not None:
            set_fate(exc, Fate.STOPPED if started else Fate.NOT_STARTED)
        remote_traceback = _text(error, "traceback", "")
        if remote_traceback:
            set_cause(exc, RemoteTraceback(remote_traceback))
            if isinstance(exc, RemoteError):
                exc.remote_traceback = remote_traceback
        return exc

    def _raised(self, error: Mapping[str, Any], depth: int) -> Exception:
        name, message = _text(error, "type"), _text(error, "message")
        notes = _notes(error)
        if "errors" in error:
            exc: Exception = self._group(error["errors"], message, depth)
        else:
            exc = self._leaf(error, name, message, notes)
        set_notes(exc, notes)
        return exc

    def _group(self, errors: object, message: str, depth: int) -> ExceptionGroup[Exception]:
        if type(errors) is not list or not errors:
            raise DecodeError("an error has a group that is not a list, or an empty one")
        if depth >= MAX_DEPTH:
            raise DecodeError(f"an error has groups inside each other, deeper than {MAX_DEPTH}")
        parts = []
        for error in errors:
            if type(error) is not dict or error.get("code") != "raised":
                raise DecodeError("an error has a part whose code is not 'raised'")
            parts.append(self._raised(error, depth + 1))
        return ExceptionGroup(message, parts)

    def _leaf(
        self, error: Mapping[str, Any], name: str, message: str, notes: list[str]
    ) -> Exception:
        self._leaves += 1
        if self._leaves > MAX_LEAVES:
            raise DecodeError(f"an error is a group of more than {MAX_LEAVES}")
        args, state = error.get("args"), error.get("fields")
        if "args" in error and type(args) is not list:
            raise DecodeError("an error has arguments that are not a list")
        if "fields" in error and (
            type(state) is not dict or not _TEXT.issuperset(map(type, state))
        ):
            raise DecodeError("an error has fields that are not a map with text keys")
        cls = self._raises.get(name) or BUILTINS.get(name)
        # An unreadable value may belong to this exception, which would be built from the wrong
        # value.
        if self._problem is not None:
            notes.append(f"shown as text, since a part of it could not be read: {self._problem}")
        elif cls is not None and args is not None:
            rebuilt = _rebuild(plan_of(cls).make(args, state, self._read), state, message, notes)
            if rebuilt is not None:
                return rebuilt
        return RemoteError(name.removeprefix("builtins."), message, tuple(notes))


_TEXT = frozenset({str})


def _bare(detail: Detail, cls: type[BaseException]) -> ErrorMap:
    name = "Exception" if detail == "none" else clip(cls.__name__, MAX_NAME)
    return {"code": "raised", "type": name, "message": "the handler failed"}


def _rebuild(
    made: tuple[BaseException, list[str]] | None,
    state: dict[str, Any] | None,
    message: str,
    notes: list[str],
) -> Exception | None:
    """Return a rebuilt exception, and note lost parts. Returns None if its class prevents that."""
    if made is None:
        return None
    exc, lost = made
    if lost:
        shown = ", ".join(quoted(str(name)) for name in lost[:MAX_ARGS])
        notes.append(f"lost on its way, since this end's class does not accept them: {shown}")
    # Its text may be built from the lost parts.
    if state is not None and clip(text_of(exc), MAX_TEXT) != message and not _is_cut(message):
        notes.append(f"its text was: {message}")
    return exc  # type: ignore[return-value]


def _is_cut(message: str) -> bool:
    return message.endswith(" characters)") or not message.isascii()


def _has_started(error: Mapping[str, Any], code: str) -> bool | None:
    """Return whether the handler had begun; None for a refusal whose class says it already."""
    if "started" not in error:
        return None if code in _REFUSALS else True
    started = error["started"]
    if type(started) is not bool:
        raise DecodeError("an error has a 'started' that is not a boolean")
    return started


def _text(error: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = error.get(key, default)
    if type(value) is not str:
        raise DecodeError(f"an error has no {key!r}, or one that is not a string")
    return value


def _notes(error: Mapping[str, Any]) -> list[str]:
    notes = error.get("notes", [])
    if type(notes) is not list or not all(type(note) is str for note in notes):
        raise DecodeError("an error has notes that are not a list of texts")
    return [*notes]


def _without_surrogates(text: str) -> str:
    """Return a text of the same length with ``?`` for lone surrogates, which cannot be sent."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _notes_of(exc: BaseException) -> list[str]:
    notes: object = getattr(exc, "__notes__", None)
    return [note for note in notes if type(note) is str] if type(notes) is list else []


def _full_name(cls: type[BaseException]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _raised_as(exc: BaseException, declared: type[BaseException], text: str) -> str:
    """Return the note of an exception that arrives as one of its base classes.

    It has the exception's text, unless an instance of that base class has the same.
    """
    note = f"raised as {_full_name(type(exc))}"
    try:
        shown: object = declared.__str__(exc)
    except Exception:  # noqa: BLE001 - it is the user's code
        shown = None
    return note if shown == text else f"{note}: {text}"


def _repr_of(value: object) -> str:
    try:
        return reprlib.repr(value)  # which abbreviates large values
    except Exception:  # noqa: BLE001 - likewise
        return f"<repr() of {type(value).__name__} failed>"


def _traceback_of(exc: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(exc))
    except Exception:  # noqa: BLE001 - likewise
        return ""
    if len(text) > MAX_TRACEBACK:  # the end is the most informative part
        text = "…" + text[-MAX_TRACEBACK:]
    return clip(text, MAX_TRACEBACK + 1)
