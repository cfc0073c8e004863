"""The HTTP half of the Python client: its requests, and the errors that refusals become."""

from __future__ import annotations

import math
import os
import ssl
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import quote

import httpx
import trio

from trio_rpc.channels import tls
from trio_rpc.errors import (
    DecodeError,
    EncodeError,
    Fate,
    InvalidArguments,
    MethodNotFound,
    Overloaded,
    Refused,
    RpcError,
    SessionBroken,
    Unavailable,
)
from trio_rpc.gateway.json_messages import from_json, to_json
from trio_rpc.util.owner import Owner
from trio_rpc.util.text import one_line

__all__ = ["WebClient"]

ANSWER = 30
"""Seconds that a gateway may take to start a call, or to accept a connection."""

REFUSALS: dict[int, type[RpcError]] = {
    400: InvalidArguments,
    401: Refused,
    403: Refused,
    404: MethodNotFound,
    405: MethodNotFound,
    408: Overloaded,
    413: InvalidArguments,
    415: InvalidArguments,
    422: InvalidArguments,
    429: Overloaded,
    503: Unavailable,
}


class WebClient:
    """An HTTP client that stays open while at least one block uses it.

    Args:
        host: the gateway's host.
        port: the gateway's port.
        path: the path at which the gateway is mounted.
        ssl_context: the context for https; None for http.
        headers: headers of each request.
    """

    def __init__(
        self,
        host: str,
        port: int,
        path: str,
        ssl_context: ssl.SSLContext | None,
        headers: Mapping[str, str],
    ) -> None:
        scheme = "http" if ssl_context is None else "https"
        netloc = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._url = f"{scheme}://{netloc}{path}"
        # For http an empty context: by default httpx loads certificates that it would never use,
        # and that takes longer than a call.
        self._ssl_context = ssl_context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._headers = headers
        self._users = 0
        self._owner: Owner
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        """Open the client for the first block. Raises RuntimeError if another Trio run uses it."""
        if not self._users:
            self._owner = Owner("this Message, while it is in use,")
        self._owner.check()
        self._users += 1
        if self._client is None:
            self._client = httpx.AsyncClient(
                base_url=self._url,
                headers=self._headers,
                verify=self._ssl_context,
                trust_env=False,
                timeout=ANSWER,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the client after the last block."""
        self._users -= 1
        if not self._users and self._client is not None:
            client, self._client = self._client, None
            with trio.CancelScope(shield=True):
                await client.aclose()

    async def start(
        self,
        method: str,
        client: str,
        data: Mapping[str, Any],
        token: str,
        names: Sequence[str],
        *,
        seconds: float,
        key: str,
    ) -> str:
        """Start a call whose end comes over the WebSocket; return its request_uuid.

        If the answer is lost, the request is sent once more, with the same key, so that it cannot
        start a second call.
        """
        for name in names:
            if not (name.isascii() and name.isidentifier()):
                raise InvalidArguments(f"{name!r:.100} cannot be the name of a callback", name)
        headers = {
            "Trio-Rpc-Token": token,
            "Trio-Rpc-Callbacks": ", ".join(names),
            "Idempotency-Key": key,
            **_timeout(seconds),
        }
        request = _json_request(dict(data), headers)
        path = f"/api/{quote(method, safe='')}/{client}"
        try:
            answer = await self._send("POST", path, **request)
        except SessionBroken:
            answer = await self._send("POST", path, **request)
        started = _checked(answer)
        if not isinstance(started, dict) or not isinstance(started.get("request_uuid"), str):
            raise DecodeError("the gateway's answer to the POST has no request_uuid")
        return str(started["request_uuid"])

    async def post_alone(self, method: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Call a method within one request; return the message that ended the call."""
        seconds = trio.current_effective_deadline() - trio.current_time()
        request = _json_request(dict(data), _timeout(seconds))
        answer = await self._send("POST", f"/api/{quote(method, safe='')}", timeout=None, **request)
        ended = _decoded(answer)
        if isinstance(ended, dict) and ended.get("type") in ("finish", "error"):
            return ended
        _checked(answer)
        raise DecodeError("the gateway's answer to the POST has no result")

    async def start_job(self, method: str, data: Mapping[str, Any], seconds: float) -> str:
        """Start a job; return its id, which contains its token.

        If the answer is lost, the request is sent once more, as in :meth:`start`.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4()), **_timeout(seconds)}
        request = _json_request(dict(data), headers)
        path = f"/api/{quote(method, safe='')}?job=1"
        # Shielded, because a request that is abandoned halfway could start a job that nobody knows.
        # The gateway answers it at once.
        with trio.CancelScope(shield=True):
            try:
                answer = await self._send("POST", path, **request)
            except SessionBroken:
                answer = await self._send("POST", path, **request)
        started = _checked(answer)
        if not isinstance(started, dict) or not {"request_uuid", "token"} <= started.keys():
            raise DecodeError("the gateway's answer to the POST has no job")
        return f"{started['request_uuid']}.{started['token']}"

    async def job(
        self, verb: str, name: str, token: str, query: Mapping[str, int]
    ) -> dict[str, Any] | None:
        """Ask for the state of a job. Returns None if the gateway does not hold the job."""
        headers = {"Trio-Rpc-Token": token}
        answer = await self._send(verb, f"/api/result/{name}", params=query, headers=headers)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        state = _decoded(answer)
        if isinstance(state, dict) and state.get("type") in ("running", "finish", "error"):
            return state
        _checked(answer)
        raise DecodeError("the gateway's answer has no state of a job")

    async def ask(self, verb: str, path: str, **given: Any) -> Any:
        """Send an ordinary request; return the JSON of the answer, or None if it is empty."""
        if "json" in given:
            given = _json_request(given["json"], {})
        return _checked(await self._send(verb, path, **given))

    async def _send(self, verb: str, path: str, **given: Any) -> httpx.Response:
        assert self._client is not None  # noqa: S101 - a block uses it
        try:
            return await self._client.request(verb, path, **given)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise ConnectionError(f"cannot connect to {self._url}: {_why(exc)}") from exc
        except httpx.TransportError as exc:
            text = f"no complete HTTP answer to a {verb} from {self._url}: {_why(exc)}"
            raise SessionBroken(text, fate=Fate.UNKNOWN) from exc


def _why(exc: Exception) -> str:
    """Return the system's reason for a failed connection, which httpx wraps several times."""
    found: BaseException | None = exc
    while found is not None:
        if isinstance(found, ssl.SSLError):
            return tls.plain_reason(found)
        if isinstance(found, OSError) and found.errno is not None and found.errno > 0:
            return os.strerror(found.errno)  # Trio's text also has the address
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        if isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        else:
            found = found.__cause__ or found.__context__
    return one_line(str(exc) or type(exc).__name__, 200)


def _timeout(seconds: float) -> dict[str, str]:
    return {} if math.isinf(seconds) else {"Trio-Rpc-Timeout": f"{max(seconds, 0):.6f}"}


def _json_request(data: Any, headers: Mapping[str, str]) -> dict[str, Any]:
    try:
        content = to_json(data)
    except (TypeError, ValueError) as exc:
        raise EncodeError(str(exc)) from None
    return {"content": content, "headers": {"Content-Type": "application/json", **headers}}


def _decoded(answer: httpx.Response) -> Any:
    if not answer.content:
        return None
    try:
        return from_json(answer.content)
    except ValueError as exc:
        if answer.is_success:
            page = answer.url.copy_with(query=None)
            kind = one_line(answer.headers.get("content-type", "no content type"), 60)
            text = f"the answer of {page} is not JSON, as a gateway's would be, but {kind}"
            raise DecodeError(f"{text}: {exc}") from None
        return None


def _describe_foreign_refusal(answer: httpx.Response) -> str:
    """Describe a refusal that no gateway wrote by its page, its status and its text."""
    page = answer.url.copy_with(query=None)
    text = f"{page} was answered {answer.status_code}"
    return f"{text}: {one_line(answer.text, 200)}" if answer.content else text


def _checked(answer: httpx.Response) -> Any:
    """Return the JSON of an answer. If it is a refusal, raise the error for its status."""
    body = _decoded(answer)
    error = body if isinstance(body, dict) else {}
    if answer.is_success and "error" not in error:
        return body
    text = str(error.get("error") or _describe_foreign_refusal(answer))
    kind = REFUSALS.get(answer.status_code)
    if kind is InvalidArguments:
        raise InvalidArguments(text, str(error.get("parameter", "")))
    if kind is not None:
        raise kind(text)
    if answer.status_code == 410:
        raise SessionBroken(f"session lost: {text}", fate=Fate.NOT_STARTED)
    raise RpcError(text)
