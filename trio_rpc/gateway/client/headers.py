"""The headers and cookies that a client sends with each of its requests."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["request_headers"]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[ -~]*")
_COOKIE = re.compile(r"[!#-+\--:<-\[\]-~]*")

OWN = re.compile(
    r"(trio-rpc|sec-websocket)-.*|host|connection|upgrade|content-.*|transfer-encoding|cookie"
    r"|idempotency-key",
    re.IGNORECASE,
)
"""The names of headers that the client sets itself."""


def request_headers(headers: Mapping[str, str], cookies: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that carry these headers and cookies.

    Raises ValueError if HTTP cannot carry one of them, or if the client itself sets it.
    """
    for name, value in headers.items():
        if OWN.fullmatch(name):
            raise ValueError(f"the client itself sets the header {name!r:.100}")
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise ValueError(f"the header {name!r:.100} must be printable ASCII")
    for name, value in cookies.items():
        if not (_NAME.fullmatch(name) and _COOKIE.fullmatch(value)):
            raise ValueError(
                f"the cookie {name!r:.100} must be ASCII without spaces, '\"', ',', ';'"
            )
    if not cookies:
        return dict(headers)
    return {**headers, "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
