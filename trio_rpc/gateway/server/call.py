"""One call from a browser: its handler, its callbacks, and the one message that ends it."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from trio_rpc.errors import Fate, LocalProtocolError, Overloaded, RemoteError, SessionBroken
from trio_rpc.gateway.json_messages import ANSWER, SPREAD, finish
from trio_rpc.gateway.server.checks import header_trace
from trio_rpc.gateway.server.forms import CallbackForm, Forms
from trio_rpc.gateway.server.home import ALONE, Home
from trio_rpc.services.costs import MOST
from trio_rpc.services.error_maps import Detail
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.calls.bugs import Bugs
from trio_rpc.session.calls.context import handled_call, outgoing_metadata
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.handler import (
    Outcome,
    error_of,
    has_expired,
    log_bug,
    run_handler,
)
from trio_rpc.session.http_request import HttpRequest
from trio_rpc.session.session import Filter
from trio_rpc.util.contexts import own_decimal_context
from trio_rpc.util.owner import Owner
from trio_rpc.util.raised import text_of
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["CallSettings", "Caller", "GatewayCall", "call_back"]

logger = logging.getLogger("trio_rpc.gateway")

current_work: ContextVar[tuple[GatewayCall, IncomingCall] | None] = ContextVar(
    "trio_rpc.gateway.current_work", default=None
)
"""The latest gateway call that was begun in this context, and its IncomingCall."""

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class CallSettings:
    """The settings that all calls of a gateway share.

    Attributes:
        filters: functions that wrap each call; the first one is outermost.
        detail: how much of an undeclared exception is sent to a client.
        bugs: logs exceptions that handlers raise but their methods do not declare.
        most: the units that converting arguments may cost: ``GatewayLimits.max_nodes``.
        complaints: logs mistakes of clients.
        home: the instance of the gateway, which makes the ids of the calls.
    """

    filters: Sequence[Filter]
    detail: Detail
    bugs: Bugs = field(default_factory=Bugs)
    most: int = MOST
    complaints: RateLimitedLog = field(default_factory=lambda: RateLimitedLog(logger))
    home: Home = ALONE


class Caller(Protocol):
    """A call's view of the client that made it.

    Attributes:
        is_resumable: whether the client uses the newer protocol.
        answers: whether its callbacks can return values.
    """

    is_resumable: bool
    answers: bool

    @property
    def name(self) -> str:
        """The client's name in logs."""

    @property
    def is_over(self) -> bool:
        """Whether the client has ended and gets no more messages."""

    def say(self, message: dict[str, Any]) -> bytes:
        """Queue the message that ends a call, without waiting, and return its text.

        Raises Overloaded if it cannot be held, and TypeError or ValueError if it is not JSON.
        """

    async def call_back(self, call: GatewayCall, message: dict[str, Any]) -> None:
        """Queue a callback; waits while the client is too far behind."""

    def forget(self, call: GatewayCall) -> None:
        """Remove a call that has ended from the running calls."""


class _Answer:
    """The value of a callback, or the error in its place, once ``has_come`` is set."""

    def __init__(self) -> None:
        self.has_come = trio.Event()
        self.value: Any = None
        self.error: Exception | None = None


class GatewayCall:
    """A call, from its POST until the message that ends it.

    Args:
        method: the method to call.
        data: its arguments by name, as they came.
        names: the callbacks that the client provides; None if it does not say.
        timeout: seconds until the call is cancelled.
        settings: the gateway's settings.
        on_end: called with this call when it has ended.
        forms: the forms of the method, if the creator has them already.
        request: the request that started it.

    Raises:
        InvalidArguments: ``data`` does not fit the method's signature.

    Attributes:
        uuid: the request_uuid by which the client knows this call. Others must not learn it.
        number: tells it from other calls of this program.
        started: when it was made.
        outcome: the text of the message that has ended the call; None until then.
        ended: set when the call has ended.
        ahead: the number of callbacks that the client has not yet handled.
    """

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        method: BoundMethod,
        data: Mapping[str, Any],
        names: Sequence[str] | None,
        timeout: float,
        settings: CallSettings,
        on_end: Callable[[GatewayCall], None],
        forms: Forms | None = None,
        request: HttpRequest | None = None,
    ) -> None:
        self.uuid = settings.home.new_id()
        self.number = next(_numbers)
        self.started = trio.current_time()
        self.outcome: bytes | None = None
        self.ended = trio.Event()
        self.ahead = 0
        self._handled = 0
        self._owner = Owner(f"a callback of {method.name}")
        self._method = method
        self._forms = forms = forms or Forms(method)
        self._settings = settings
        self._names = names
        self._on_end = on_end
        self._request = request
        self._scope = trio.CancelScope(deadline=trio.current_time() + timeout)
        self._why_cancelled = "cancelled by the client"
        self._client: Caller | None = None
        self._skipped: set[str] = set()
        self._failed: set[str] = set()
        # Bound: the tasks of the handler that wait for the value of a callback.
        self._answers: dict[int, _Answer] = {}
        self._asked = 0
        self._reported: dict[str, str] = {}
        """Errors of callbacks in the client, by name, that the handler has not seen yet."""
        callbacks = {
            name: self._callback(name, forms.callbacks[name])
            for name, is_required in method.signature.callbacks.items()
            if is_required or names is None or name in names
        }
        self._kwargs = forms.bind({**data, **callbacks}, settings.most)

    @property
    def name(self) -> str:
        """The name of the call in logs, and of its task."""
        return self._method.name

    # ── its handler ──────────────────────────────────────────────────────────────────────────

    async def run(self, client: Caller) -> None:
        """Run the handler and send the client exactly one message that ends the call (law 4)."""
        self._client = client
        # This task has its own copy of the context in which the gateway was opened. Replace the
        # values in it that do not apply to this call.
        trace = None if self._request is None else header_trace(self._request.headers)
        context = {"metadata": trace} if trace else None
        call = IncomingCall(None, 0, self._method, (), self._kwargs, context)
        call.request = self._request
        outgoing_metadata.set(None)
        own_decimal_context()
        current_work.set((self, call))
        try:
            await run_handler(
                self._settings.filters,
                call,
                self._scope,
                functools.partial(self._ended, client, call),
            )
        finally:
            client.forget(self)
            self._kwargs = {}  # the call itself may be held for longer, for its result
            self._on_end(self)
            self.ended.set()

    def _ended(self, client: Caller, call: IncomingCall, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._end(client, _with_start(call, self._raised(call, outcome.error)))
            log_bug(
                self._settings.bugs,
                call,
                outcome.error,
                session=client.name,
                number=self.uuid,
                is_cancelled=self._scope.cancel_called or client.is_over,
            )
        elif outcome.is_cancelled:
            self._end(client, _with_start(call, self._cancelled(call)))
        else:
            self._end_with_result(client, outcome.result)

    def _end_with_result(self, client: Caller, result: object) -> None:
        try:
            self._end(client, finish(self.uuid, self._forms.result.write(result)))
        except Exception as exc:  # noqa: BLE001 - a value's own attributes may be code that fails
            text = f"the result of {self.name} cannot be sent: {text_of(exc)}"
            self._end(client, self._error("internal", text))
            self._settings.bugs.unsendable(exc, self.name, session=client.name, call=self.uuid)

    def _end(self, client: Caller, message: dict[str, Any]) -> None:
        try:
            self.outcome = client.say(message)
        except Overloaded as exc:
            # "started" says that the handler has run: a filter's refusal has the same code.
            started = message.get("started", True)
            error = {**self._error("overloaded", str(exc)), "started": started}
            self.outcome = client.say(error)
            text = "the outcome of a call of %s was dropped: max_unsent bytes are held for clients"
            self._settings.complaints.log(logging.WARNING, text, self.name)

    def _raised(self, call: IncomingCall, exc: BaseException) -> dict[str, Any]:
        fault = error_of(call, exc, self._settings.detail)
        error = self._error(fault["code"], str(fault.get("message", "")))
        if "type" in fault:
            error["error_type"] = fault["type"]
        return error

    def _cancelled(self, call: IncomingCall) -> dict[str, Any]:
        if not self._scope.cancelled_caught:
            return self._error(
                "cancelled", "the client has disconnected, or the gateway is closing"
            )
        if has_expired(call):
            return self._error("deadline", "the deadline has passed")
        return self._error("cancelled", self._why_cancelled)

    def _error(self, code: str, text: str) -> dict[str, Any]:
        text = text.encode(errors="backslashreplace").decode()  # its text may be anything
        return {"type": "error", "request_uuid": self.uuid, "error": text, "code": code}

    def cancel(self, reason: str) -> None:
        """Cancel the handler. The message that ends the call is sent as usual."""
        self._scope.cancel(reason=reason)

    def cancel_here(self, reason: str) -> None:
        """Cancel the handler, although its client wants it; the client gets the reason."""
        if not self._scope.cancel_called:
            self._why_cancelled = reason
            self.cancel(reason)

    @property
    def is_cancelling(self) -> bool:
        """Whether the handler is cancelled, and has not ended."""
        return self._scope.cancel_called

    @property
    def address(self) -> str | None:
        """The address that its request came from, if the web server knows it."""
        return None if self._request is None else self._request.address

    # ── its callbacks ────────────────────────────────────────────────────────────────────────

    def handled(self, count: int) -> None:
        """Record how many callbacks the client has handled in all; ignore an impossible count."""
        if self._handled < count <= self._handled + self.ahead:
            self.ahead -= count - self._handled
            self._handled = count

    def callback_failed(self, name: str, error: str) -> None:
        """Record that a callback raised in the client; the handler's next use of it also raises."""
        if name in self._method.signature.callbacks:
            if name not in self._failed:  # log once: a client may repeat this any number of times
                self._failed.add(name)
                text = "the callback %r of %s failed: %r"
                self._settings.complaints.log(logging.WARNING, text, name, self.name, error)
            self._reported[name] = error

    def _callback(self, name: str, form: CallbackForm) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def callback(*args: Any, **kwargs: Any) -> Any:
            written = {name: form.write(args, kwargs)}
            if form.asks:
                return await self._ask(name, form, written)
            await self._call_back(written)
            return None

        callback.__name__ = name
        return callback

    async def _ask(self, name: str, form: CallbackForm, written: Mapping[str, Any]) -> Any:
        """Make a callback, and wait for the value that it returns in the client."""
        if self._client is not None and not self._client.answers:
            if form.may_be_none:
                await self._call_back(written)
                return None
            raise LocalProtocolError(f"{name}: the callbacks of this client return no values")
        if not (self._names is None or name in self._names):
            raise RemoteError("Error", f"{name}: the client did not provide this callback")
        self._asked = number = self._asked + 1
        answer = self._answers[number] = _Answer()
        try:
            await self._call_back(written, [number, min(self._answers)])
            if self._client is None or self._client.is_over:
                self.client_is_over()
            await answer.has_come.wait()
        finally:
            del self._answers[number]
        if answer.error is not None:
            raise answer.error
        return form.read(answer.value, self._settings.most)

    def answered(self, number: int, value: Any, error: str | None) -> None:
        """Record the value that a callback has returned, or its error; ignore a repeated one."""
        answer = self._answers.get(number)
        if answer is None or answer.has_come.is_set():
            return
        answer.value = value
        if error is not None:
            answer.error = RemoteError("Error", error)
        answer.has_come.set()

    def client_is_over(self) -> None:
        """Fail the callbacks whose values the handler waits for: their client has ended."""
        for answer in self._answers.values():
            if not answer.has_come.is_set():
                text = "the client has disconnected before its callback returned a value"
                answer.error = SessionBroken(text, fate=Fate.UNKNOWN)
                answer.has_come.set()

    async def call_back(self, payloads: Mapping[str, Any]) -> None:
        """Make several callbacks in one message; see :func:`call_back`."""
        forms = self._forms.callbacks
        for name in payloads:
            if name not in forms:
                raise LocalProtocolError(f"{self.name} has no callback {name!r}")
        await self._call_back(
            {name: forms[name].write_whole(value) for name, value in payloads.items()}
        )

    async def _call_back(
        self, written: Mapping[str, tuple[Any, bool]], answer: list[int] | None = None
    ) -> None:
        self._owner.check()
        if self._client is None or self.outcome is not None:
            raise LocalProtocolError(
                f"a callback of {self.name} lives only until its handler has ended"
            )
        message: dict[str, Any] = {"type": "callback", "request_uuid": self.uuid}
        spread = []
        for name, (payload, is_spread) in written.items():
            if name in self._reported:
                raise RemoteError("Error", f"{name}: {self._reported.pop(name)}")
            if self._names is None or name in self._names:
                message[name] = payload
                if is_spread:
                    spread.append(name)
            else:
                self._skip(name)
        if len(message) > 2:
            if answer is not None:
                message[ANSWER] = answer
            if spread and self._client.is_resumable:  # older clients do not know this key
                message[SPREAD] = spread
            await self._client.call_back(self, message)
        else:
            await trio.lowlevel.checkpoint()

    def _skip(self, name: str) -> None:
        if name not in self._skipped:
            self._skipped.add(name)
            text = "%s called the callback %r, which its client did not provide"
            self._settings.complaints.log(logging.WARNING, text, self.name, name)


def _with_start(call: IncomingCall, error: dict[str, Any]) -> dict[str, Any]:
    """Return an error message, marked as not started if the handler has not begun (law 15)."""
    return error if call.has_begun else {**error, "started": False}


async def call_back(**payloads: Any) -> None:
    """Make several callbacks of the call that is being handled here, in one message.

    The client runs the callbacks in the order in which they are given. As with a single callback,
    this returns once the message has been queued, and waits while the client is too far behind.

    Args:
        **payloads: the argument of each callback, by the callback's name. For a callback that takes
            several arguments or none, give a tuple of them.

    Raises:
        RuntimeError: no call from a gateway is being handled here.
        LocalProtocolError: a name is not a callback of this call, or its handler has ended.
        RemoteError: one of the callbacks raised in the client the last time it ran.
        TypeError, ValueError: a value cannot be sent as JSON; nothing was sent.

    Example:
        >>> class Scanner:
        ...     @trio_rpc.method
        ...     async def scan(
        ...         self,
        ...         found: Callable[[str], Awaitable[None]],
        ...         progress: Callable[[float], Awaitable[None]],
        ...     ) -> None:
        ...         await trio_rpc.gateway.call_back(found="a.txt", progress=0.5)
    """
    current = current_work.get()
    # A handler can open a session. The handlers of that session inherit current_work, but the call
    # that they handle does not come from a gateway.
    if current is None or handled_call.get() is not current[1]:
        raise RuntimeError("no call from a gateway is being handled here")
    await current[0].call_back(payloads)
