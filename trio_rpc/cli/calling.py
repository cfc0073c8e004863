"""The commands ``call``, ``stream``, ``notify``, ``describe`` and ``ping``, each in one session."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import trio
from rich.text import Text

from trio_rpc.cli.arguments import Callbacks, parse_arguments
from trio_rpc.cli.connecting import Target, connected, single
from trio_rpc.cli.exits import (
    GRACE,
    CallFailed,
    CommandError,
    Unreachable,
    Usage,
    describe_error,
    error_line,
)
from trio_rpc.cli.output import Output
from trio_rpc.cli.statistics import Latencies
from trio_rpc.cli.terminal import plural, pretty_json, safe, script_json
from trio_rpc.cli.through_gateway import check_call
from trio_rpc.errors import (
    EncodeError,
    Fate,
    MethodNotFound,
    RpcError,
    SessionBroken,
    SessionClosed,
)
from trio_rpc.services.decorators import Kind
from trio_rpc.services.introspection import DESCRIBE
from trio_rpc.services.proxies import RemoteMethod

__all__ = ["call", "describe", "failing_as_one_line", "notify", "ping", "stream", "sum_up"]

MOST_SHOWN = 100_000
"""Characters of a result that a terminal shows; pipes and ``--json`` get all."""

_FATES = {
    Fate.NOT_STARTED: " (the handler never ran)",
    Fate.UNKNOWN: " (it is unknown whether the handler ran)",
}


class FieldInfo(msgspec.Struct):
    """One field of a class, as the other end describes it."""

    name: str
    type: str = "Any"
    required: bool = True


class TypeInfo(msgspec.Struct):
    """A class, as the other end describes it."""

    name: str
    fields: list[FieldInfo] = []


class MethodInfo(NamedTuple):
    """One method, as the other end describes it."""

    name: str
    kind: str
    signature: str
    doc: str
    raises: list[str]
    types: list[TypeInfo]


async def call(
    target: Target,
    method: str,
    arguments: str,
    output: Output,
    *,
    patience: float,
    callbacks: Sequence[str] = (),
) -> None:
    """Call one method and print its result.

    Args:
        target: the server.
        method: its full name.
        arguments: as for :func:`trio_rpc.cli.arguments.parse_arguments`.
        output: prints the result.
        patience: seconds until the call is cancelled; ``inf`` for never.
        callbacks: the parameters that get a function, which prints its arguments.
    """
    printed = Callbacks(callbacks, output)
    args, kwargs = parse_arguments(arguments)
    named = printed.added_to(kwargs)
    check_call(target.url, method, args)
    async with connected(target) as session:
        deadline = trio.current_time() + patience
        with failing_as_one_line(method, deadline), printed.shown(), trio.fail_at(deadline):
            # Not session.call(), whose own keyword arguments could clash with the method's.
            result = await RemoteMethod(session, method)(*args, **named)
    _print_value(result, output)


async def notify(target: Target, method: str, arguments: str) -> None:
    """Send one notification, which has no answer.

    Args:
        target: the server.
        method: the notification's full name.
        arguments: as for :func:`call`.
    """
    args, kwargs = parse_arguments(arguments)
    check_call(target.url, method, args)
    async with connected(target) as session:
        with failing_as_one_line(method):
            await RemoteMethod(session, method, Kind.NOTIFICATION)(*args, **kwargs)


async def stream(
    target: Target, method: str, arguments: str, output: Output, *, count: float, patience: float
) -> None:
    """Open one stream and print its items as they arrive.

    Args:
        target: the server.
        method: the stream's full name.
        arguments: as for :func:`call`.
        output: prints the items.
        count: the number of items after which to leave; ``inf`` for all.
        patience: seconds after which to leave, which is not an error; ``inf`` for never.
    """
    args, kwargs = parse_arguments(arguments)
    check_call(target.url, method, args, Kind.STREAM)
    printed = 0
    async with connected(target) as session:
        with failing_as_one_line(method), trio.move_on_after(patience):
            async with RemoteMethod(session, method, Kind.STREAM)(*args, **kwargs) as items:
                async for item in items:
                    _print_value(item, output)
                    printed += 1
                    if printed >= count:
                        break


def _print_value(value: Any, output: Output) -> None:
    try:
        text = script_json(value) if output.as_json else pretty_json(value)
    except ValueError as exc:
        raise CallFailed(f"the result cannot be shown as JSON: {safe(exc)}") from exc
    if output.as_json:
        output.text(text)
        return
    if output.is_terminal and len(text) > MOST_SHOWN:
        output.line(text[:MOST_SHOWN])
        output.line(f"… {len(text):,} characters in all; --json prints them", "dim")
    else:
        output.line(text)


@contextlib.contextmanager
def failing_as_one_line(method: str, deadline: float = math.inf) -> Iterator[None]:
    """Turn an error of a call into an exit code and one line of text.

    Args:
        method: the name of the method.
        deadline: the time at which the call is cancelled, on Trio's clock.
    """
    try:
        yield
    except CommandError:
        raise  # output has failed, and the error says so
    except EncodeError as exc:
        reason = safe(exc).removeprefix("cannot be sent: ")
        raise Usage(f"the arguments cannot be sent: {reason}") from exc
    except trio.TooSlowError as exc:
        text = f"{safe(method, 100)}: no result in time; the call was cancelled"
        if trio.current_time() - deadline < GRACE:
            text += ", its handler ended"
        else:
            text += f", but its handler did not end within {GRACE:g} s: it may still run"
        raise CallFailed(text, {"type": "TooSlowError"}) from exc
    except (SessionClosed, SessionBroken) as exc:
        text = f"{safe(method, 100)}: {safe(exc)}{_FATES.get(exc.fate, '')}"
        raise Unreachable(text, describe_error(exc)) from exc
    except Exception as exc:
        fate = _FATES.get(exc.fate, "") if isinstance(exc, RpcError) else ""
        text = f"{safe(method, 100)}: {error_line(exc)}{fate}"
        raise CallFailed(text, describe_error(exc)) from exc


# ── describe ─────────────────────────────────────────────────────────────────────────────────


async def describe(target: Target, output: Output) -> None:
    """Print the methods that the server offers, and the fields of the types that they name."""
    async with connected(target) as session:
        try:
            with failing_as_one_line(DESCRIBE):
                answer = await session.call(DESCRIBE)
        except CallFailed as exc:
            if isinstance(exc.__cause__, MethodNotFound):
                raise CallFailed(f"{target.url} does not describe itself") from exc
            raise
    try:
        methods = msgspec.convert(answer, list[dict[str, Any]])
        described = [msgspec.convert(_row(each), MethodInfo) for each in methods]
    except msgspec.ValidationError as exc:
        raise CallFailed(f"{target.url} describes itself in another way: {safe(exc)}") from exc
    if output.as_json:
        output.json([msgspec.to_builtins(each._asdict()) for each in described])
    else:
        _print_methods(described, output)
        _print_types([one for each in described for one in each.types], output)


def _row(entry: dict[str, Any]) -> list[Any]:
    empty = {"kind": "method", "signature": "(...)", "doc": "", "raises": [], "types": []}
    return [({**empty, **entry}).get(field) for field in MethodInfo._fields]


def _print_methods(methods: list[MethodInfo], output: Output) -> None:
    if not methods:
        output.line("no methods are offered")
    heading = ""
    for method in methods:
        service, _, name = method.name.rpartition(".")
        if service != heading:
            if heading:
                output.line()
            output.line(safe(service, 100), "bold magenta")
            heading = service
        indent = "  " if service else ""
        output.line(_headline(method, name, indent))
        if method.doc:
            output.line(f"{indent}    {safe(method.doc)}", "dim")


def _print_types(types: list[TypeInfo], output: Output) -> None:
    for one in types:
        output.line()
        output.line(safe(one.name, 100), "bold magenta")
        for field in one.fields:
            name = (safe(field.name, 100), "bold cyan")
            text = Text.assemble("  ", name, f": {safe(field.type, 500)}")
            if not field.required:
                text.append("  optional", style="yellow")
            output.line(text)


def _headline(method: MethodInfo, name: str, indent: str) -> Text:
    text = Text.assemble(indent, (safe(name, 100), "bold cyan"), safe(method.signature, 500))
    if method.kind != "method":
        text.append(f"  {safe(method.kind, 30)}", style="yellow")
    if method.raises:
        shown = ", ".join(safe(each, 60) for each in method.raises[:20])
        text.append(f"  raises {shown}", style="red")
    return text


# ── ping ─────────────────────────────────────────────────────────────────────────────────────


@trio.lowlevel.enable_ki_protection  # Ctrl-C interrupts a wait, never a line half printed
async def ping(
    target: Target,
    output: Output,
    latencies: Latencies | None = None,
    *,
    count: int,
    interval: float,
) -> None:
    """Measure how long the other end takes to answer.

    Args:
        target: the server.
        output: prints the times.
        latencies: collects the times, so that the caller has them even if this is interrupted.
        count: the number of pings.
        interval: seconds between one answer and the next ping.
    """
    latencies = Latencies() if latencies is None else latencies
    async with contextlib.AsyncExitStack() as stack:
        sessions = {
            url: await stack.enter_async_context(single(target, url))
            for url in (target.url, *target.connection.also)
        }
        for number in range(1, count + 1):
            if number > 1:
                await trio.sleep(interval)
            for url, session in sessions.items():
                with failing_as_one_line("ping"):
                    seconds = await session.ping()
                latencies.add(seconds)
                if not output.as_json:
                    output.line(f"{url}: {number}/{count}  {seconds * 1e3:.3f} ms")
    sum_up(target, output, latencies)


def sum_up(target: Target, output: Output, latencies: Latencies) -> None:
    """Print the summary of all pings."""
    if output.as_json:
        output.json({"url": target.url, **latencies.as_dict()})
        return
    times = f": {latencies}" if len(latencies) else ""
    output.line(f"{plural(len(latencies), 'answer')}{times}", "bold")
