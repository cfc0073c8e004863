"""The Python client of a gateway, the counterpart of ``message.js`` in a browser."""

from __future__ import annotations

import contextlib
import logging
import math
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, Self

import trio

from trio_rpc.channels import tls
from trio_rpc.channels.connecting import naming
from trio_rpc.errors import Fate, RpcError, SessionBroken
from trio_rpc.gateway.client.headers import request_headers
from trio_rpc.gateway.client.http import WebClient
from trio_rpc.gateway.client.job import Job
from trio_rpc.gateway.client.outcomes import Callback, call_with, result_of
from trio_rpc.gateway.client.session import Call, ClientSession, error_text
from trio_rpc.gateway.client.socket import TextSocket, open_text_socket
from trio_rpc.gateway.json_messages import (
    ANSWER,
    ENVELOPE,
    SPREAD,
    from_json,
)
from trio_rpc.gateway.json_values import UNTYPED
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.option_checks import check_ssl_context
from trio_rpc.util.raised import described
from trio_rpc.util.reconnect import keep_connected
from trio_rpc.util.time_limits import SilenceTimer, time_limit

__all__ = ["Message"]

logger = logging.getLogger("trio_rpc.gateway")

HANDSHAKE = 10
"""Seconds within which a connection must be open and bring the gateway's first message."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""The longest pause between attempts to reconnect, in seconds: at first, and later on."""

GOODBYE_TIMEOUT = 1
"""Seconds that closing the WebSocket may take."""


class _Holder:
    """A ``connect`` block or a post that needs the connection."""

    def __init__(self) -> None:
        self.is_settled = trio.Event()
        """Set when the connection is up, or when an attempt has failed with ``error``."""
        self.error: Exception | None = None
        self.scope = trio.CancelScope(shield=True)
        """The scope of its task, which may be the one that carries the messages.

        It is shielded, because a cancelled post still needs the connection.
        """


def _check_host(host: str) -> None:
    is_odd = not host or any(each in " /@?#" for each in host)
    if is_odd or host.count(":") == 1 or "]:" in host:
        text = "port and path are separate arguments"
        raise ValueError(f"host must be a name or an address alone, not {host!r}: {text}")


class Message:
    """Calls a gateway's methods and runs their callbacks.

    Example:
        >>> async def scan(port: int) -> None:
        ...     message = trio_rpc.gateway.Message("localhost", port)
        ...     async with message.connect():
        ...         print(await message.post("scan", {"folder": "/"}, {"found": print}))

    Args:
        host: the gateway's host.
        port: the gateway's port.
        path: the path at which it is mounted, such as ``"/rpc"``; "" if it is served alone.
        secure: whether to use https and wss.
        ssl_context: verifies the gateway's certificate; by default by the system's authorities.
        cancel_grace: seconds that a cancelled post waits for the gateway to confirm that the call
            has ended.
        headers: headers to send with each request and with the WebSocket, such as
            ``{"Authorization": "Bearer …"}``.
        cookies: cookies to send with them.

    Raises:
        ValueError: the host is a URL, or has a port; or HTTP cannot carry a header or a cookie, or
            the client itself sets it.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        path: str = "",
        secure: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        cancel_grace: float = 30.0,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
    ) -> None:
        _check_host(host)
        self._place = (host, port)
        self._path = path.rstrip("/")
        check_ssl_context(ssl_context)
        self._ssl_context = (ssl_context or tls.client_context()) if secure else None
        self._cancel_grace = cancel_grace
        self._headers = request_headers(headers or {}, cookies or {})
        self._web = WebClient(host, port, self._path, self._ssl_context, self._headers)
        self._session: ClientSession | None = None
        self._socket: TextSocket | None = None
        # Bound: the blocks and posts that are in progress.
        self._holders: list[_Holder] = []
        self._turn = trio.Lock()
        self._news = trio.Event()
        self._lost_at = math.inf

    def __repr__(self) -> str:
        host, port = self._place
        return f"<trio_rpc.gateway.Message {host}:{port}{self._path} {self.state}>"

    @property
    def client_id(self) -> str | None:
        """The gateway's id for this client; None while it has none."""
        return None if self._session is None else self._session.id

    @property
    def state(self) -> str:
        """The state of the connection.

        ``"open"``, ``"connecting"`` (also again), or ``"closed"`` while no block or post needs it.
        """
        if self._socket is not None:
            return "open"
        return "connecting" if self._holders else "closed"

    # ── the connection ───────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Self]:
        """Stay connected while the block lasts.

        The block begins once the gateway has given this client its id. Blocks may overlap, in
        several tasks; the connection closes when the last of them ends. A lost connection is
        restored automatically, and calls continue, unless the gateway no longer knows this client.

        Raises:
            OSError: the gateway cannot be reached; one line of text.
        """
        holder = _Holder()
        with one_exception() as body:
            async with trio.open_nursery() as nursery, self._web:
                self._holders.append(holder)
                nursery.start_soon(self._take_turns, holder)
                try:
                    await self._until_up(holder)
                    yield self
                except BaseException as exc:
                    body.append(exc)
                    raise
                finally:
                    self._holders.remove(holder)
                    if not self._holders:
                        await self._say_goodbye()
                    holder.scope.cancel(reason="the block is over")

    async def _until_up(self, holder: _Holder) -> None:
        if self._socket is None:
            await holder.is_settled.wait()
        else:
            await trio.lowlevel.checkpoint()
        if holder.error is not None:
            host, port = self._place
            with naming(f"cannot connect to {host}:{port}{self._path}/ws"):
                raise holder.error

    async def _take_turns(self, holder: _Holder) -> None:
        """Carry the messages when it is this holder's turn; the next holder resumes the session."""
        with holder.scope:
            async with self._turn:
                await keep_connected(
                    self._connect, first_delay=FIRST_PAUSE, max_delay=LONGEST_PAUSE
                )

    async def _connect(self) -> bool:
        """Connect once, until the connection ends; return whether the gateway has answered."""
        try:
            with one_exception():
                await self._connect_once()
        except (OSError, RpcError) as exc:
            was_up = self._socket is not None
            self._failed(exc)
            return was_up
        finally:
            self._down()
        return True

    async def _connect_once(self) -> None:
        """Connect or resume, and carry messages until the connection ends.

        Its end raises OSError. Returns only if the gateway no longer knows the session.
        """
        host, port = self._place
        query = "resumable=1&pieces=1&answers=1" if self._session is None else "resume=1"
        path = f"{self._path}/ws?{query}"
        async with open_text_socket(
            host,
            port,
            path,
            self._ssl_context,
            patience=HANDSHAKE,
            headers=self._headers,
        ) as socket:
            async with time_limit(
                HANDSHAKE, f"the gateway at {host}:{port} sends no first message"
            ):
                session = await self._greet(socket)
            if session is None:
                return
            self._up(socket)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, socket, session)
                    await self._read(socket, session)
            except* OSError:
                if self._socket is socket:
                    raise
                await trio.sleep_forever()  # this end said goodbye; connect() cancels this next

    async def _greet(self, socket: TextSocket) -> ClientSession | None:
        """Exchange the first messages; return the session, or None if it could not be resumed."""
        if self._session is None:
            hello = _object(await socket.receive())
            self._session = ClientSession(hello, self._has_news)
            return self._session
        await socket.send(self._session.resume())
        if _object(await socket.receive()).get("type") != "resumed":
            self._lose("the gateway does not know it any more")
            return None
        self._session.resumed()
        return self._session

    def _up(self, socket: TextSocket) -> None:
        self._socket = socket
        self._lost_at = math.inf
        for holder in self._holders:
            holder.is_settled.set()

    def _down(self) -> None:
        if self._socket is not None:
            self._socket = None
            grace = 0 if self._session is None else self._session.grace
            self._lost_at = trio.current_time() + grace

    def _failed(self, exc: Exception) -> None:
        """Record that a connection or an attempt has failed, and tell the waiting holders."""
        if self._socket is not None:
            logger.info("the connection to the gateway is lost: %s", exc)
            return
        if trio.current_time() >= self._lost_at:
            self._lose(f"the gateway could not be reached in time: {exc}")
        for holder in self._holders:
            if not holder.is_settled.is_set():
                holder.error = exc
                holder.is_settled.set()

    def _lose(self, why: str) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.lose(lambda: SessionBroken(f"session lost: {why}"))

    async def _say_goodbye(self) -> None:
        socket, self._socket, self._session = self._socket, None, None
        if socket is not None:
            with trio.move_on_after(GOODBYE_TIMEOUT, shield=True):
                await socket.close('{"type":"bye"}')

    def _has_news(self) -> None:
        self._news.set()

    async def _write(self, socket: TextSocket, session: ClientSession) -> None:
        while True:
            self._news = trio.Event()
            for text in session.news():
                await socket.send(text)
            await self._news.wait()

    async def _read(self, socket: TextSocket, session: ClientSession) -> None:
        silence = session.keepalive * 2 or math.inf
        timer = SilenceTimer(silence)
        while True:
            with trio.CancelScope(deadline=timer.deadline) as scope:
                session.hear(await socket.receive())
                timer.heard()
            if scope.cancelled_caught and timer.is_over():
                raise TimeoutError(f"nothing was heard for {silence:g} s")

    # ── calls ────────────────────────────────────────────────────────────────────────────────

    async def post(
        self,
        method: str,
        data: Mapping[str, Any] | None = None,
        callbacks: Mapping[str, Callback] | None = None,
    ) -> Any:
        """Call a method, run its callbacks as they come, and return its result.

        Callbacks run one after the other, in this task, with the arguments that the handler passes.
        The result of an async callback is awaited. If a callback raises, the handler learns of it,
        and the call continues.

        Outside of :meth:`connect`, a call with callbacks opens a temporary connection, and a call
        without callbacks is a single request without a connection.

        If this task is cancelled, the call is also cancelled, and this waits for its end, for
        ``cancel_grace`` seconds at most. A call that is a single request hangs up instead. The
        deadline of this task applies to the call at both ends.

        Args:
            method: its name, ``"service.method"``.
            data: its arguments by name: None, bool, int up to 2^53 - 1, finite floats, str, lists,
                and dicts with text keys. Other types are refused, because this end does not know
                how the method would read them.
            callbacks: functions, by the names of the parameters that take them.

        Raises:
            EncodeError: ``data`` has a value that JSON does not keep; nothing was sent.
            RemoteError: the method raised an exception.
            RemoteCancelled: the call was cancelled, but not by this task.
            SessionBroken: the session or the answer was lost; the outcome of the call is unknown.
            MethodNotFound, InvalidArguments, Overloaded, Unavailable, Refused: the call was not
                started.
            OSError: the gateway cannot be reached.
        """
        await trio.lowlevel.checkpoint()
        if not callbacks and not self._holders:
            async with self._web:
                return result_of(await self._web.post_alone(method, data or {}))
        async with self.connect():
            return await self._post_over(method, data or {}, callbacks or {})

    async def start(
        self,
        method: str,
        data: Mapping[str, Any] | None = None,
        *,
        time_limit: float | None = None,
    ) -> Job:
        """Start a job: a call that goes on when this client leaves. Return it once it has begun.

        Keep ``job.id``: with it, :meth:`job` finds the job again, from any client. The job does not
        end with this task, and does not have the deadline of this task.

        Args:
            method: the name of a method that is marked with :func:`outlives`.
            data: its arguments by name, as in :meth:`post`.
            time_limit: seconds after which the gateway cancels the job; by default it has no limit.

        Raises:
            EncodeError, MethodNotFound, InvalidArguments, Overloaded, Unavailable, Refused: as for
                :meth:`post`. InvalidArguments also if the method is not marked.
            SessionBroken: the answer was lost, twice; it is unknown whether the job was started.
            OSError: the gateway cannot be reached.
        """
        seconds = math.inf if time_limit is None else time_limit
        async with self._web:
            name = await self._web.start_job(method, data or {}, seconds)
        return Job(self._web, name)

    def job(self, name: str) -> Job:
        """Return the job with this id. Nothing is sent yet.

        Args:
            name: the ``id`` of a job.

        Raises:
            ValueError: it is not the id of a job.
        """
        return Job(self._web, name)

    async def _post_over(
        self, method: str, data: Mapping[str, Any], callbacks: Mapping[str, Callback]
    ) -> Any:
        session = self._session
        if session is None:
            raise SessionBroken("session lost", fate=Fate.NOT_STARTED)
        session.posting()
        try:
            call = session.started(await self._start(session, method, data, list(callbacks)))
        except RpcError as exc:
            session.raise_if_lost(exc)
            raise
        finally:
            session.posted()
        return await self._follow(call, callbacks)

    async def _start(
        self, session: ClientSession, method: str, data: Mapping[str, Any], names: list[str]
    ) -> str:
        # Shielded, because a request that is abandoned halfway could start a call that this end
        # does not know. The gateway answers it at once.
        seconds = trio.current_effective_deadline() - trio.current_time()
        with trio.CancelScope(shield=True):
            request = await self._web.start(
                method,
                session.id,
                data,
                session.token,
                names,
                seconds=seconds,
                key=str(uuid.uuid4()),
            )
        return request  # noqa: RET504 - mypy assumes that the scope may swallow exceptions

    async def _follow(self, call: Call, callbacks: Mapping[str, Callback]) -> Any:
        # 1. Run the callbacks in order, until next() returns None: the call has ended, or this task
        #    has been cancelled.
        # 2. If the call has not ended, cancel it and wait for its end (law 2).
        # 3. If this task was cancelled, raise that, unless the call ended by itself and all its
        #    callbacks have run (law 3).
        # 4. Otherwise return the result of the call, or raise its error.
        skipped: set[str] = set()
        try:
            while (message := await call.next()) is not None:
                await trio.lowlevel.checkpoint_if_cancelled()
                await self._run_callbacks(call, message, callbacks, skipped)
                call.handled()
        except BaseException:
            await self._cancel(call)  # a callback was cancelled or raised a BaseException
            raise
        if call.end is None:
            await self._cancel(call)
        if call.raise_cancel is not None and (call.is_cut or not _is_its_own(call.end)):
            call.raise_cancel()
        return await self._settle(call.end)

    async def _cancel(self, call: Call) -> None:
        """Cancel the call, and wait for its end (law 2)."""
        call.cancel("cancelled by the caller")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._cancel_grace):
            await call.ended.wait()

    async def _run_callbacks(
        self,
        call: Call,
        message: Mapping[str, Any],
        callbacks: Mapping[str, Callback],
        skipped: set[str],
    ) -> None:
        spread, ticket = message.get(SPREAD), _ticket(message.get(ANSWER))
        for name, payload in message.items():
            if name in ENVELOPE:
                continue
            callback = callbacks.get(name)
            if callback is None:
                if name not in skipped:
                    skipped.add(name)
                    logger.warning("the gateway calls %r, but post got no such callback", name)
                if ticket is not None:
                    call.answered(ticket, {"error": f"{name}: post got no such callback"})
                continue
            try:
                result = call_with(callback, name, payload, spread)
                if isinstance(result, Awaitable):
                    result = await result
                if ticket is not None:
                    call.answered(ticket, {"value": UNTYPED.write(result)})
            except Exception as exc:  # it is reported to the handler
                logger.warning("the callback %r failed", name, exc_info=exc)
                text = described(exc)
                if ticket is None:
                    call.failed(name, text)
                else:
                    call.answered(ticket, {"error": error_text(f"{name}: {text}")})

    async def _settle(self, end: dict[str, Any] | RpcError | None) -> Any:
        if isinstance(end, dict) and end.get("code") == "deadline":
            # Law 5: a caller whose own deadline has passed sees the Cancelled of that scope.
            await trio.sleep_until(min(trio.current_effective_deadline(), trio.current_time() + 1))
            await trio.lowlevel.checkpoint()
        return result_of(end)

    # ── ordinary requests ────────────────────────────────────────────────────────────────────

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """GET a page of the same server, and return its JSON; None if the page is empty.

        Args:
            path: the page's path, such as ``"/users"``, below the path of the gateway.
            params: the query, by name.

        Raises:
            Exception: an error of :meth:`post`, according to the status of the answer.
        """
        return await self._ask("GET", path, params=params)

    async def put(self, path: str, data: Any = None) -> Any:
        """PUT JSON, and return the JSON of the answer.

        Args:
            path: as in :meth:`get`.
            data: a value that JSON has.

        Raises:
            Exception: the same errors as :meth:`get`.
        """
        return await self._ask("PUT", path, json=data)

    async def delete(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """DELETE something, and return the JSON of the answer.

        Args:
            path: as in :meth:`get`.
            params: the query, by name.

        Raises:
            Exception: the same errors as :meth:`get`.
        """
        return await self._ask("DELETE", path, params=params)

    async def _ask(self, verb: str, path: str, **given: Any) -> Any:
        async with self._web:
            return await self._web.ask(verb, path, **given)


def _ticket(value: Any) -> tuple[int, int] | None:
    """Return the numbers by which a value is awaited; None if the handler awaits none."""
    if type(value) is list and len(value) == 2 and all(type(one) is int for one in value):
        return value[0], value[1]
    return None


def _is_its_own(end: object) -> bool:
    """Return whether the call ended by itself.

    A cancellation does not hide such an end (law 3), except if callbacks of the call were not run
    because of it: a local call would have ended at the first of them.
    """
    return isinstance(end, dict) and end.get("code") not in ("cancelled", "deadline")


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        message = from_json(text)
    except ValueError:
        message = None
    return message if type(message) is dict else {}
