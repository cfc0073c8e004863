"""The gateway's HTTP responses: JSON, refusals, and files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from trio_rpc.gateway.json_messages import encode
from trio_rpc.gateway.server.checks import Refusal
from trio_rpc.util.text import quoted

__all__ = [
    "SESSION_JS",
    "answer_http_error",
    "answer_refusal",
    "json_response",
    "pages_below",
    "static_file",
]

STATIC = Path(__file__).parents[1] / "static"
SESSION_JS = Path(__file__).parents[2] / "js"
"""The folders of the files that browsers download unchanged."""


def pages_below(folder: Path | str | None) -> list[Mount]:
    """Return the route that serves a folder's files, or no route for None. Raises ValueError."""
    if folder is None:
        return []
    if not Path(folder).is_dir():
        raise ValueError(f"pages: {str(folder)!r} is not a directory")
    return [Mount("/", _Pages(directory=folder, html=True))]


WELL_KNOWN = ".well-known"
"""A hidden folder whose files are meant for everybody (RFC 8615)."""


class _Pages(StaticFiles):
    """Static files; a request for a folder gets its ``index.html``.

    No request finds a hidden file, such as ``.env`` or those in ``.git``, because the folder may
    hold a program beside its pages.
    """

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        parts = Path(path).parts
        if any(part.startswith(".") for part in parts[parts[:1] == (WELL_KNOWN,) :]):
            return "", None
        return super().lookup_path(path)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if isinstance(response, RedirectResponse):
            # A relative redirect adds the slash to any URL that a browser uses for the folder.
            response.headers["location"] = f"./{quote(Path(path).name)}/"
        return response


def static_file(name: str, kind: str, folder: Path = STATIC) -> Any:
    """Return an endpoint that sends one of the files that browsers download unchanged."""

    async def send(_request: Request) -> Response:
        text = (folder / name).read_text("utf-8")
        return Response(text, media_type=kind, headers={"Cache-Control": "no-cache"})

    return send


async def answer_refusal(_request: HTTPConnection, exc: Exception) -> Response:
    """Turn a Refusal into its response."""
    assert isinstance(exc, Refusal)  # noqa: S101 - registered for nothing else
    body = {"error": exc.text, **({"parameter": exc.parameter} if exc.parameter else {})}
    response = json_response(exc.status, body)
    if exc.retry_after is not None:
        response.headers["Retry-After"] = str(exc.retry_after)
    return response


async def answer_http_error(request: Request, exc: Exception) -> Response:
    """Turn an error of the router, such as 404, into a response in JSON."""
    assert isinstance(exc, HTTPException)  # noqa: S101 - registered for nothing else
    text = exc.detail
    if exc.status_code == HTTPStatus.NOT_FOUND:
        text = f"this gateway has no page {quoted(request.scope['path'])}"
    return Response(encode({"error": text}), exc.status_code, exc.headers, "application/json")


def json_response(status: int, value: Mapping[str, Any]) -> Response:
    """Return a response in JSON."""
    return Response(encode(value), status, media_type="application/json")
