"""Open a session from a URL, and report each failure in one line."""

from __future__ import annotations

import contextlib
import functools
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from trio_rpc.cli.exits import GRACE, Unreachable, Usage, describe_error, naming_url
from trio_rpc.cli.terminal import safe
from trio_rpc.cli.through_gateway import GatewayCalls, is_web, through_gateway
from trio_rpc.client import connect
from trio_rpc.errors import RpcError, SessionBroken
from trio_rpc.pool.dns import DNS
from trio_rpc.pool.open_pool import open_pool
from trio_rpc.pool.pool import Pool
from trio_rpc.pool.targets import EXEC, words_of
from trio_rpc.process import open_process
from trio_rpc.session.calls.context import metadata
from trio_rpc.session.session import Session
from trio_rpc.tracing import print_trace
from trio_rpc.util.exact_json import exact_float, no_constant, unique_keys
from trio_rpc.wire.limits import Limits

__all__ = [
    "Connection",
    "Target",
    "connected",
    "parse_json",
    "parse_metadata",
    "pooled",
    "reading_pem",
    "single",
]

T = TypeVar("T")

PLAIN = (EXEC, "tcp:", "dns+tcp:", "unix:", "ws:", "http:")
"""The beginnings of URLs without TLS."""

PEM_REASONS = {
    "PEM lib": "the file has no certificate with its private key in PEM form; --key names the key",
    "NO_CERTIFICATE": "the file has no certificate in PEM form",
    "KEY_VALUES_MISMATCH": "the private key belongs to another certificate",
}
"""The meaning of parts of OpenSSL's texts."""

PATIENCE = 10.0
"""Seconds to wait for the first of several instances."""

LIMITS = Limits(cancel_grace=GRACE)
"""The limits of each session: Ctrl-C must also end a command whose server is frozen."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Connection:
    """The options to connect, for every command that calls a server; each field is an option."""

    ca: Annotated[
        Path | None,
        Parameter(
            name="--ca",
            help="Certificates to trust for tls and wss, a PEM file. Default: the system's.",
        ),
    ] = None
    cert: Annotated[
        Path | None,
        Parameter(
            name="--cert",
            help="Certificate of this client, for a server that requires one, a PEM file.",
        ),
    ] = None
    key: Annotated[
        Path | None,
        Parameter(name="--key", help="Private key of the certificate, if it is in another file."),
    ] = None
    server_name: Annotated[
        str | None,
        Parameter(
            name="--server-name",
            help="Name that the server's certificate must have. Default: the host of the URL.",
        ),
    ] = None
    insecure: Annotated[
        bool,
        Parameter(
            name="--insecure",
            negative="",
            show_default=False,
            help="Accept any certificate. Anybody on the way can then read and change all data.",
        ),
    ] = False
    credentials: Annotated[
        str | None,
        Parameter(
            name="--credentials",
            env_var="TRIO_RPC_CREDENTIALS",
            help="JSON, for a server that requires credentials.",
        ),
    ] = None
    header: Annotated[
        Sequence[str],
        Parameter(
            name="--header",
            negative="",
            show_default=False,
            help="For http and https: a header of each request, as 'NAME: VALUE'. May be repeated.",
        ),
    ] = ()
    also: Annotated[
        Sequence[str],
        Parameter(
            name="--also",
            negative="",
            show_default=False,
            help="URL of another instance of the server, to share the calls. May be repeated.",
        ),
    ] = ()

    def context(self) -> ssl.SSLContext | None:
        """Return the context for TLS, or None if every option has its default. Raises Usage."""
        if self.key is not None and self.cert is None:
            raise Usage("--key requires --cert, the certificate that the key belongs to")
        if self.insecure and (self.ca is not None or self.server_name is not None):
            raise Usage("--insecure accepts any certificate: --ca and --server-name have no effect")
        chosen = self.ca, self.cert, self.server_name
        if not self.insecure and all(each is None for each in chosen):
            return None
        context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.server_name = self.server_name
        with reading_pem(f"--ca {self.ca}"):
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            else:
                context.load_default_certs()
        if self.cert is not None:
            with reading_pem(f"--cert {self.cert}"):
                context.load_cert_chain(self.cert, self.key)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class _NamedContext(ssl.SSLContext):
    """A context that asks for, and checks, a name other than the one it connects to."""

    server_name: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - as in the class above
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Start TLS with ``server_name``, if there is one."""
        name = server_hostname if self.server_name is None else self.server_name
        return super().wrap_bio(incoming, outgoing, server_side, name, session)


@contextlib.contextmanager
def reading_pem(option: str) -> Iterator[None]:
    """Read a certificate in this block. Raises Usage that begins with the option and its file."""
    try:
        yield
    except OSError as exc:  # SSLError is one
        text = str(exc.strerror or exc)
        reason = next((said for part, said in PEM_REASONS.items() if part in text), text)
        raise Usage(f"{safe(option)}: {safe(reason)}") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, and how to connect to it.

    Attributes:
        url: its URL, or ``exec:`` and the command that starts it.
        connection: the options of the connection.
        metadata: the metadata of each call.
        trace: whether to print each step of the session's calls on standard error.
    """

    url: str
    connection: Connection = field(default_factory=Connection)
    metadata: Mapping[str, str] = field(default_factory=dict)
    trace: bool = False


@contextlib.asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Session | Pool | GatewayCalls]:
    """Connect, or start the server as a child process; the block owns the session.

    With several instances, or all addresses of a name, the block owns a pool. Calls that are made
    in the block carry the metadata of ``target``.

    Raises:
        Usage: the URL, the file or the credentials are invalid.
        Unreachable: the session cannot be opened.
    """
    opening: contextlib.AbstractAsyncContextManager[Session | Pool | GatewayCalls]
    if target.connection.also or target.url.startswith(DNS):
        opening = pooled(target, patience=PATIENCE)
    else:
        opening = single(target, target.url)
    with metadata(**target.metadata):
        async with opening as session:
            yield session


@contextlib.asynccontextmanager
async def single(target: Target, url: str) -> AsyncIterator[Session | GatewayCalls]:
    """Open a session with one instance, or make calls through one gateway, for a block.

    Raises as :func:`connected` does.
    """
    _check_for_tls(target)
    if is_web(url):
        _check_for_gateway(target)
        context, headers = target.connection.context(), target.connection.header
        async with through_gateway(url, context, headers) as calls:
            yield calls
        return
    _check_for_session(target)
    async with _reported(url, functools.partial(_session, url, _options(target))) as session:
        yield session


@contextlib.asynccontextmanager
async def pooled(target: Target, *, patience: float) -> AsyncIterator[Pool]:
    """Open a pool of all instances; the block owns it. Raises as :func:`connected` does.

    Args:
        target: the instances.
        patience: seconds to wait for the first one.
    """
    _check_for_tls(target)
    _check_for_session(target)
    urls = (target.url, *target.connection.also)
    opening = functools.partial(open_pool, *urls, patience=patience, **_options(target))
    async with _reported(target.url, opening) as pool:
        yield pool


def _check_for_tls(target: Target) -> None:
    """Refuse options for TLS if no URL has it: they would be ignored. Raises Usage."""
    connection = target.connection
    chosen = connection.ca, connection.cert, connection.key, connection.server_name
    if not connection.insecure and all(each is None for each in chosen):
        return
    if all(each.startswith(PLAIN) for each in (target.url, *connection.also)):
        raise Usage(
            f"{safe(target.url)} is not encrypted: --ca, --cert, --key, --server-name and"
            " --insecure are for tls, wss, nats and https"
        )


def _check_for_session(target: Target) -> None:
    """Refuse an option that a session cannot have. Raises Usage."""
    if target.connection.header:
        raise Usage("--header is for http:// and https:// URLs: a session has --credentials")


def _check_for_gateway(target: Target) -> None:
    """Refuse the options that a gateway cannot have. Raises Usage."""
    for option, is_given, instead in (
        ("--credentials", target.connection.credentials is not None, "give it --header"),
        ("--metadata", bool(target.metadata), "give it arguments"),
        ("--trace", target.trace, "trace its server"),
    ):
        if is_given:
            raise Usage(f"{option} is for sessions, but {safe(target.url)} is a gateway: {instead}")


def _options(target: Target) -> dict[str, Any]:
    options: dict[str, Any] = {"limits": LIMITS}
    connection = target.connection
    if (context := connection.context()) is not None:
        options["ssl_context"] = context
    if connection.credentials is not None:
        options["credentials"] = parse_json(connection.credentials, "--credentials")
    if target.trace:
        options["trace"] = print_trace
    return options


@contextlib.asynccontextmanager
async def _reported(
    url: str, opening: Callable[[], contextlib.AbstractAsyncContextManager[T]]
) -> AsyncIterator[T]:
    """Open a session or a pool for a block, and report each failure in one line."""
    try:
        async with contextlib.AsyncExitStack() as stack:
            try:
                opened = await stack.enter_async_context(opening())
            except (OSError, RpcError) as exc:  # first: a certificate's error is also a ValueError
                raise Unreachable(naming_url(url, exc)) from exc
            except ValueError as exc:
                raise Usage(safe(exc)) from exc
            yield opened
    except SessionBroken as exc:  # the session ended while the block waited for something else
        raise Unreachable(naming_url(url, exc), describe_error(exc)) from exc


def _session(url: str, options: dict[str, Any]) -> contextlib.AbstractAsyncContextManager[Session]:
    if url.startswith(PLAIN):  # another URL has TLS
        options = {key: value for key, value in options.items() if key != "ssl_context"}
    if not url.startswith(EXEC):
        return connect(url, **options)
    return open_process(words_of(url), **options)


def parse_json(text: str, what: str) -> Any:
    """Read JSON without loss. Raises Usage, whose text names the mistake and its place."""
    try:
        return json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_float=exact_float,
            parse_constant=no_constant,
        )
    except json.JSONDecodeError as exc:
        where = (
            f"line {exc.lineno}, column {exc.colno}" if exc.lineno > 1 else f"column {exc.colno}"
        )
        raise Usage(f"{what} must be JSON: {exc.msg} at {where} of {safe(text, 60)}") from exc
    except (RecursionError, ValueError) as exc:  # too deep, too many digits, a repeated key
        raise Usage(f"{what} must be JSON that can be read: {safe(exc, 100)}") from exc


def parse_metadata(entries: Sequence[str]) -> dict[str, str]:
    """Read ``name=value`` entries. Raises Usage."""
    parsed: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (name and equals):
            raise Usage(f"--metadata must be name=value, not {safe(entry, 60)}")
        if name in parsed:
            raise Usage(f"--metadata has the name {safe(name, 60)} twice")
        parsed[name] = value
    return parsed
