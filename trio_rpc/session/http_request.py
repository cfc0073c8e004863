"""The HTTP request that a browser's call came with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["HttpRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """The request of a browser, as a gateway's ``authenticate``, its filters and handlers see it.

    Everything in it but ``identity`` was written by the client, or by a proxy in between.

    Attributes:
        method: ``"GET"`` for a WebSocket that opens and for a result that is collected, ``"POST"``
            for a call.
        path: the path below the gateway, such as ``"/api/shop.buy"`` or ``"/ws"``.
        headers: the headers by their names in lower case. Of a header that came twice, the first.
        cookies: the cookies by their names.
        address: the address that the server has the connection from, such as ``"203.0.113.7"``;
            None if the server does not say. Behind a proxy it is the address of the proxy.
        identity: the value that ``authenticate`` returned; None before that, and without it.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    address: str | None
    identity: Any = None
