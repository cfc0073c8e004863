"""One call of a browser's: a handler that runs, its callbacks, and the one message that ends it."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from trio_rpc.errors import LocalProtocolError, RemoteError
from trio_rpc.gateway.texts import callback_payload, finish
from trio_rpc.services.faults import Detail, to_error
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.context import Call, Handled, handled_call
from trio_rpc.session.filters import Filter, apply_filters

if TYPE_CHECKING:
    from trio_rpc.gateway.clients import Client

__all__ = ["Work"]

logger = logging.getLogger("trio_rpc.gateway")


class Work:
    """A call, from its POST until the message that ends it.

    Args:
        method: what is called.
        data: its keyword arguments, as they came.
        names: the callbacks that the client has; None if it does not say.
        timeout: seconds that it may take.
        filters: run round it, the first one outermost.
        detail: how much of an exception its client is told.

    Raises:
        InvalidArguments: ``data`` does not fit the method's signature.

    Attributes:
        uuid: names it to its client.
        outcome: the message that has ended it.
    """

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        method: BoundMethod,
        data: Mapping[str, Any],
        names: Sequence[str] | None,
        timeout: float,
        filters: Sequence[Filter],
        detail: Detail,
    ) -> None:
        self.uuid = str(uuid.uuid4())
        self.outcome: dict[str, Any] | None = None
        self._method = method
        self._filters = filters
        self._detail = detail
        self._scope = trio.CancelScope()
        self._deadline = math.inf if math.isinf(timeout) else trio.current_time() + timeout
        self._client: Client
        self._names = names
        self._skipped: set[str] = set()
        self._reported: dict[str, str] = {}
        """What the client says of its callbacks that have raised, until the handler has been told."""
        callbacks = {name: self._callback(name) for name in method.signature.callbacks}
        _, self._kwargs = method.signature.bind([], {**data, **callbacks})

    @property
    def name(self) -> str:
        """What it is called in logs, and its task."""
        return self._method.name

    # ── its life ─────────────────────────────────────────────────────────────────────────────

    async def run(self, client: Client) -> None:
        """Run the handler and tell the client how it ended, exactly once (law 4)."""
        self._client = client
        self._scope.deadline = self._deadline
        try:
            with self._scope:
                self.outcome = await self._outcome()
            if self.outcome is None:
                over = trio.current_time() >= self._deadline
                self.outcome = self._error("deadline" if over else "cancelled", "it was cancelled")
        finally:
            del client.works[self.uuid]
            if self.outcome is not None:
                self._tell(client, self.outcome)

    async def _outcome(self) -> dict[str, Any]:
        try:
            return finish(self.uuid, await self._call())
        except Exception as exc:  # noqa: BLE001 - it is its caller's (law 7)
            fault = to_error(exc, self._method.raises, self._detail)
            kind = fault.get("type", type(exc).__name__)
            return {**self._error("raised", fault["message"]), "error_type": kind}
        except BaseExceptionGroup as group:
            # Trio's Cancelled is in it, or what ends the program; the rest has nobody else to go to.
            logger.exception("%s failed as it was cancelled", self.name, exc_info=group)
            raise

    def _call(self) -> Coroutine[Any, Any, Any]:
        handled = Handled(self._client, 0, self._method, (), self._kwargs, None)  # type: ignore[arg-type]
        handled_call.set(handled)

        async def proceed() -> Any:
            await trio.lowlevel.checkpoint()
            result = self._method.function(**self._kwargs)
            return await result if self._method.is_async else result

        call = Call(self._client, self.name, (), self._kwargs, {})  # type: ignore[arg-type]
        return apply_filters(self._filters, call, proceed)  # type: ignore[return-value]

    def _tell(self, client: Client, outcome: dict[str, Any]) -> None:
        try:
            client.say_last(outcome)
        except (TypeError, ValueError) as exc:
            self.outcome = self._error("internal", f"the result of {self.name} is no JSON: {exc}")
            client.say_last(self.outcome)

    def _error(self, code: str, text: str) -> dict[str, Any]:
        return {"type": "error", "request_uuid": self.uuid, "error": text, "code": code}

    def cancel(self, reason: str) -> None:
        """Cancel the handler; that it has ended is told as always."""
        self._scope.cancel(reason=reason)

    # ── its callbacks ────────────────────────────────────────────────────────────────────────

    def callback_failed(self, name: str, error: str) -> None:
        """The client says that a callback of this call has raised; the next use of it tells the handler."""
        if name in self._method.signature.callbacks:
            logger.warning("the callback %r of %s failed: %r", name, self.name, error[:1000])
            self._reported[name] = error[:1000]

    def _callback(self, name: str) -> Callable[..., Coroutine[Any, Any, None]]:
        async def callback(*args: Any, **kwargs: Any) -> None:
            """Have it called in the browser, after all that was before; waits while that is behind.

            Raises LocalProtocolError once the handler has ended, RemoteError if it has raised before.
            """
            if self.outcome is not None:
                raise LocalProtocolError(
                    f"a callback of {self.name} lives only until its handler has ended"
                )
            if name in self._reported:
                raise RemoteError("Error", f"{name}: {self._reported.pop(name)}")
            if self._names is not None and name not in self._names:
                self._skip(name)
                await trio.lowlevel.checkpoint()
                return
            payload = callback_payload(args, kwargs)
            await self._client.say({"type": "callback", "request_uuid": self.uuid, name: payload})

        return callback

    def _skip(self, name: str) -> None:
        if name not in self._skipped:
            self._skipped.add(name)
            logger.warning("%s calls %r, which its client has not given", self.name, name)
