"""The commands, their arguments and their exit codes."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter

from trio_rpc.cli import behind_nats, benching, calling, describing, serving
from trio_rpc.cli.arguments import parse_arguments
from trio_rpc.cli.checking import check_health
from trio_rpc.cli.connecting import Connection, Target, parse_metadata
from trio_rpc.cli.defaults import words_of
from trio_rpc.cli.demo import demo as run_demo
from trio_rpc.cli.examples import epilogue
from trio_rpc.cli.exits import CommandError, Exit, Usage
from trio_rpc.cli.listening import ServeOptions
from trio_rpc.cli.listing import instances as list_instances
from trio_rpc.cli.output import Output, complain
from trio_rpc.cli.parameters import DEFAULT_CONNECTION, WHOLE, Json, Metadata, Patience, Switch
from trio_rpc.cli.reloading import serve_again_after_changes
from trio_rpc.cli.running import trio_run, typed_words
from trio_rpc.cli.statistics import Latencies
from trio_rpc.cli.streams import complaining, without_log, writing
from trio_rpc.cli.target import load_services
from trio_rpc.cli.terminal import safe
from trio_rpc.cli.top import top
from trio_rpc.nats.addresses import is_nats
from trio_rpc.pool.dns import DNS

__all__ = ["app", "run"]

app = cyclopts.App(
    name="trio-rpc",
    help="Remote calls that live inside your nursery.",
    help_epilogue=epilogue(""),
    group_parameters="Options",
)

app.register_install_completion_command()

DEFAULT_DURATION = 5.0
"""Seconds of ``bench`` if neither its duration nor the number of calls is given."""

NEGATIVE = ("false", "no", "n", "0", "f")
"""The values that turn a switch off."""


def run(arguments: Sequence[str]) -> int:
    """Run one command, and return its exit code; see :class:`Exit`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack characters: "…"
    as_json = any(_asks_for_json(each) for each in arguments)
    try:
        with without_log():
            return _run(arguments)
    except CommandError as exc:
        complain(exc, as_json=as_json)
        return exc.code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    finally:
        with complaining():
            pass  # flush the lines that loggers have written


def _asks_for_json(argument: str) -> bool:
    """Return whether an argument is ``--json``; called before all arguments are parsed."""
    name, _, value = argument.partition("=")
    return name == "--json" and value.lower() not in NEGATIVE


def _run(arguments: Sequence[str]) -> int:
    words = words_of(arguments, taking_url=commands_taking_url(), switches=switches())
    typed_words.set(words)
    try:
        command, bound, _ = app.parse_args(
            words,
            exit_on_error=False,
            print_error=False,
        )
    except cyclopts.CycloptsError as exc:
        raise Usage(f"{safe(exc)} (trio-rpc --help says more)") from exc
    if command in (app.help_print, app.version_print):  # these write to standard output
        with writing():
            command(*bound.args, **bound.kwargs)
            sys.stdout.flush()
        return Exit.OK
    result = command(*bound.args, **bound.kwargs)
    with writing():
        sys.stdout.flush()
    return result if isinstance(result, int) else Exit.OK


def commands_taking_url() -> set[str]:
    """Return the commands that have an argument ``url``, which may be left out."""
    functions = {name: app[name].default_command for name in app if not name.startswith("-")}
    return {
        name
        for name, function in functions.items()
        if function is not None and "url" in signature(function).parameters
    }


def switches() -> set[str]:
    """Return the options of all commands that have no value."""
    return {
        name
        for command in app
        if not command.startswith("-")
        for argument in app[command].assemble_argument_collection()
        if argument.hint is bool
        for name in argument.names
    }


@app.command(help_epilogue=epilogue("demo"))
def demo(*, quick: Switch = False, json: Json = False) -> int:
    """Watch two processes call each other, report progress and cancel one another.

    Args:
        quick: Take about two seconds.
        json: Print one JSON object at the end, for scripts.
    """
    result: int = trio_run(run_demo, Output(as_json=json), quick=quick)
    return result


@app.command(help_epilogue=epilogue("serve"))
def serve(
    services: str,
    /,
    *,
    listen: Annotated[list[str], Parameter(name="--listen", negative="")],
    grace: float = 5.0,
    error_detail: Literal["none", "message", "traceback"] = "message",
    cert: Path | None = None,
    key: Path | None = None,
    allow_origin: Annotated[list[str] | None, Parameter(name="--allow-origin", negative="")] = None,
    allow_host: Annotated[list[str] | None, Parameter(name="--allow-host", negative="")] = None,
    pages: Path | None = None,
    resume: Switch = False,
    require_credentials_file: Path | None = None,
    until_stdin_closes: Switch = False,
    introspection: Switch = False,
    allow_cancel: Switch = False,
    reload: Switch = False,
    access_log: Switch = False,
    trace: Switch = False,
    verbose: Switch = False,
    json: Json = False,
) -> int:
    """Serve an object until SIGTERM or Ctrl-C, then let the calls in flight end.

    A second signal stops at once.

    Args:
        services: module:object, from the working directory or an installed module: an object with
            decorated methods, a mapping of names to such objects, or a function of the session.
        listen: URL to listen at: tcp://host:port (port 0: any free one), tls://host:port,
            unix:///path, ws://host:port/path, wss://host:port/path, nats://host,host/service;
            http://host:port or https://host:port for browsers. May be repeated.
        grace: Seconds that calls in flight get to finish after the first signal.
        error_detail: How much of an undeclared exception is sent to its caller.
        cert: Certificate chain for tls, wss and https, a PEM file.
        key: Private key of the certificate, if it is in another file.
        allow_origin: For ws, wss, http and https: an origin whose pages may connect, such as
            https://example.org. May be repeated. Default: pages from the same host and port.
        allow_host: For http and https: a host name that browsers may use for this server. May be
            repeated. Default: any host; when listening on loopback, loopback names only.
        pages: For http and https: a folder of files to serve to browsers; index.html is the first
            page.
        resume: Allow clients to resume their session on a new connection. Browsers always can.
        require_credentials_file: Refuse sessions without one of the credentials in this file, which
            has a JSON value a line. Each line holds the credentials of one client.
        until_stdin_closes: Stop gracefully when standard input ends, for a parent process that
            holds its other end.
        introspection: Offer the service introspection, which shows all sessions and calls to each
            client, for trio-rpc top.
        allow_cancel: Allow clients to cancel each other's calls by the service introspection.
        reload: For development: serve again, in a fresh process, when a Python file in or below the
            working directory has changed. Calls in flight get the grace first. A file that cannot
            be imported is reported, and served after the next change.
        access_log: Print a line for each call of the sessions on standard error: client, method,
            outcome, time and sizes. Calls of browsers are not in it.
        trace: Print each step of the sessions' calls on standard error. Calls of browsers have no
            trace.
        verbose: Also log connections that did not become sessions.
        json: Print one JSON object per event, for scripts.
    """
    if not (math.isfinite(grace) and grace >= 0):
        raise Usage("--grace must be a number of seconds, 0 or more")
    if reload:
        if until_stdin_closes:
            raise Usage(
                "--until-stdin-closes cannot be used with --reload, which uses standard input"
            )
        code: int = trio_run(
            serve_again_after_changes, typed_words.get(), Output(as_json=json), grace=grace
        )
        return code
    options = ServeOptions(
        urls=listen,
        grace=grace,
        error_detail=error_detail,
        cert=cert,
        key=key,
        allowed_origins=allow_origin,
        allowed_hosts=allow_host,
        pages=pages,
        resume=resume,
        credentials_file=require_credentials_file,
        until_stdin_closes=until_stdin_closes,
        introspection=introspection,
        allow_cancel=allow_cancel,
        access_log=access_log,
        trace=trace,
    )
    with serving.logging_to_stderr(verbose=verbose, access=access_log):
        result: int = trio_run(
            serving.serve, load_services(services), options, Output(as_json=json)
        )
    return result


@app.command(help_epilogue=epilogue("call"))
def call(
    url: str,
    method: str,
    arguments: str = "[]",
    /,
    *,
    timeout: Patience = math.inf,
    callback: Annotated[list[str] | None, Parameter(name="--callback", negative="")] = None,
    metadata: Metadata = None,
    connection: Connection = DEFAULT_CONNECTION,
    trace: Switch = False,
    json: Json = False,
) -> None:
    """Call one method and print its result as JSON.

    Values that JSON does not have are printed as text: bytes in base64, times in ISO 8601,
    timedelta in seconds. A result whose keys would become the same text is an error.

    Args:
        url: tcp://host:port, tls://host:port, unix:///path, ws://host:port/path,
            wss://host:port/path or nats://host,host/service; http://host:port/path or
            https://host:port/path of a gateway; or exec:COMMAND for a program that serves its
            parent, such as 'exec:python plugin.py'.
        method: service.method, or a method of the service without a name.
        arguments: JSON: a list of positional arguments, or an object of named ones. @FILE reads it
            from a file, and - from standard input.
        timeout: Cancel the call after this many seconds, at both ends. Default: no bound.
        callback: A parameter that takes a function. Its arguments are printed; numbers from 0 to 1
            move a bar. May be repeated.
        metadata: Metadata of the call, as NAME=VALUE. May be repeated.
        connection: How to connect.
        trace: Print each step of the call on standard error.
        json: Print the result on one line, in ASCII; an error as one JSON object on standard error.
    """
    if not timeout > 0:
        raise Usage("--timeout must be more than 0 seconds")
    target = _target(url, connection, metadata, trace=trace)
    output = Output(as_json=json)
    trio_run(
        calling.call,
        target,
        method,
        arguments,
        output,
        patience=timeout,
        callbacks=callback or (),
    )


@app.command(help_epilogue=epilogue("stream"))
def stream(
    url: str,
    method: str,
    arguments: str = "[]",
    /,
    *,
    count: Annotated[int | None, WHOLE] = None,
    timeout: Patience = math.inf,
    metadata: Metadata = None,
    connection: Connection = DEFAULT_CONNECTION,
    trace: Switch = False,
    json: Json = False,
) -> None:
    """Open one stream and print its items as JSON, as they arrive.

    Args:
        url: tcp://host:port, tls://host:port, unix:///path, ws://host:port/path,
            wss://host:port/path or nats://host,host/service; or exec:COMMAND for a program that
            serves its parent, such as 'exec:python plugin.py'.
        method: service.method, or a stream of the service without a name.
        arguments: JSON: a list of positional arguments, or an object of named ones. @FILE reads it
            from a file, and - from standard input.
        count: Leave after this many items, which closes the generator at the other end. Default:
            all items.
        timeout: Leave after this many seconds. Default: no bound.
        metadata: Metadata of the call, as NAME=VALUE. May be repeated.
        connection: How to connect.
        trace: Print each step of the call on standard error.
        json: Print each item on one line, in ASCII; an error as one JSON object on standard error.
    """
    most = math.inf if count is None else count
    if not (timeout > 0 and most > 0):
        raise Usage("--timeout and --count must be more than 0")
    target = _target(url, connection, metadata, trace=trace)
    output = Output(as_json=json)
    trio_run(calling.stream, target, method, arguments, output, count=most, patience=timeout)


@app.command(help_epilogue=epilogue("notify"))
def notify(
    url: str,
    method: str,
    arguments: str = "[]",
    /,
    *,
    metadata: Metadata = None,
    connection: Connection = DEFAULT_CONNECTION,
    trace: Switch = False,
    json: Json = False,
) -> None:
    """Send one notification. It has no answer: nothing tells whether its handler succeeded.

    Args:
        url: tcp://host:port, tls://host:port, unix:///path, ws://host:port/path,
            wss://host:port/path or nats://host,host/service; http://host:port/path or
            https://host:port/path of a gateway; or exec:COMMAND for a program that serves its
            parent, such as 'exec:python plugin.py'.
        method: service.method, or a notification of the service without a name.
        arguments: JSON: a list of positional arguments, or an object of named ones. @FILE reads it
            from a file, and - from standard input.
        metadata: Metadata of the notification, as NAME=VALUE. May be repeated.
        connection: How to connect.
        trace: Print each step on standard error.
        json: Print an error as one JSON object on standard error.
    """
    del json  # only ``run`` looks at it
    trio_run(calling.notify, _target(url, connection, metadata, trace=trace), method, arguments)


@app.command(help_epilogue=epilogue("describe"))
def describe(
    url: str, /, *, connection: Connection = DEFAULT_CONNECTION, json: Json = False
) -> None:
    """List the methods that a server offers, and the fields of their types.

    Args:
        url: tcp://host:port, tls://host:port, unix:///path, ws://host:port/path,
            wss://host:port/path or nats://host,host/service; http://host:port/path or
            https://host:port/path of a gateway; or exec:COMMAND for a program that serves its
            parent, such as 'exec:python plugin.py'.
        connection: How to connect.
        json: Print one JSON list, for scripts.
    """
    target = Target(url=url, connection=connection)
    trio_run(calling.describe, target, Output(as_json=json))


@app.command(help_epilogue=epilogue("health"))
def health(
    url: str,
    /,
    *,
    service: Annotated[str, Parameter(show_default=False)] = "",
    named: str = "health",
    timeout: float = 5.0,
    connection: Connection = DEFAULT_CONNECTION,
    json: Json = False,
) -> None:
    """Ask a server whether it can do its work, for probes.

    The exit code is 0 if it is serving, 1 if it is not serving, draining, or does not know the
    service, or if it has no answer in time, and 3 if there is no session with it.

    Args:
        url: tcp://host:port, tls://host:port, unix:///path, ws://host:port/path,
            wss://host:port/path or nats://host,host/service; http://host:port/path or
            https://host:port/path of a gateway; or exec:COMMAND for a program that serves its
            parent, such as 'exec:python plugin.py'.
        service: The service to ask for. Default: the server as a whole.
        named: The name under which the server offers its trio_rpc.health.Health.
        timeout: Seconds until the command fails.
        connection: How to connect.
        json: Print one JSON object, for scripts.
    """
    if not (math.isfinite(timeout) and timeout > 0):
        raise Usage("--timeout must be a number of seconds, more than 0")
    target = Target(url=url, connection=connection)
    output = Output(as_json=json)
    trio_run(check_health, target, output, service=service, named=named, patience=timeout)


@app.command(help_epilogue=epilogue("typescript"))
def typescript(
    services: str,
    /,
    *,
    gateway: Switch = False,
    module: Annotated[str | None, Parameter(name="--import")] = None,
) -> None:
    """Print TypeScript types of services, for clients in JavaScript.

    Args:
        services: module:object, as for serve; not a function of the session.
        gateway: For message.js, the client of a gateway. Default: for session.js.
        module: The module to import the client from. Default: ./message.js or ./session.js.
    """
    text = describing.typescript_text(services, gateway=gateway, module=module)
    Output(as_json=False).text(text.rstrip())


@app.command(help_epilogue=epilogue("openapi"))
def openapi(services: str, /, *, title: str = "Services", api_version: str = "1") -> None:
    """Print an OpenAPI 3.1 document of services that a gateway offers.

    Args:
        services: module:object, as for serve; not a function of the session.
        title: The title of the document.
        api_version: The version of the services.
    """
    text = describing.openapi_text(services, title=title, version=api_version)
    Output(as_json=False).text(text)


@app.command(help_epilogue=epilogue("ping"))
def ping(
    url: str,
    /,
    *,
    count: Annotated[int, WHOLE] = 4,
    interval: float = 0.5,
    connection: Connection = DEFAULT_CONNECTION,
    json: Json = False,
) -> None:
    """Measure how long a server takes to answer. Ctrl-C prints the summary so far.

    Args:
        url: tcp://host:port, tls://host:port, unix:///path, ws://host:port/path,
            wss://host:port/path or nats://host,host/service; http://host:port/path or
            https://host:port/path of a gateway; or exec:COMMAND for a program that serves its
            parent, such as 'exec:python plugin.py'.
        count: Number of pings.
        interval: Seconds between an answer and the next ping.
        connection: How to connect.
        json: Print one JSON object, for scripts.
    """
    if count < 1:
        raise Usage("--count must be at least 1")
    if not (math.isfinite(interval) and interval >= 0):
        raise Usage("--interval must be a number of seconds, 0 or more")
    if any(each.startswith(DNS) for each in (url, *connection.also)):
        raise Usage("ping measures single servers: give the URL of one, and --also for others")
    target = Target(url=url, connection=connection)
    output, latencies = Output(as_json=json), Latencies()
    try:
        trio_run(calling.ping, target, output, latencies, count=count, interval=interval)
    except KeyboardInterrupt:
        calling.sum_up(target, output, latencies)
        raise


@app.command(help_epilogue=epilogue("bench"))
def bench(
    url: str,
    method: str,
    arguments: str = "[]",
    /,
    *,
    callers: Annotated[int, Parameter(name=("--callers", "-c")), WHOLE] = 1,
    count: Annotated[int | None, Parameter(name=("--count", "-n")), WHOLE] = None,
    duration: Patience = math.inf,
    plot: Path | None = None,
    metadata: Metadata = None,
    connection: Connection = DEFAULT_CONNECTION,
    json: Json = False,
) -> None:
    """Call one method many times over one session, and print how long the calls took.

    Ctrl-C prints the summary so far, and draws it if there is --plot.

    Args:
        url: tcp://host:port, tls://host:port, unix:///path, ws://host:port/path,
            wss://host:port/path or nats://host,host/service; http://host:port/path or
            https://host:port/path of a gateway; or exec:COMMAND for a program that serves its
            parent, such as 'exec:python plugin.py'.
        method: service.method, or a method of the service without a name.
        arguments: JSON: a list of positional arguments, or an object of named ones. @FILE reads it
            from a file, and - from standard input.
        callers: Number of calls in flight at a time.
        count: Number of calls. Default: as many as fit into the duration.
        duration: Seconds after which no further call is made. Default: 5, unless --count is given.
        plot: Draw the latencies into this file, such as latency.svg. This requires matplotlib.
        metadata: Metadata of each call, as NAME=VALUE. May be repeated.
        connection: How to connect.
        json: Print one JSON object, for scripts.
    """
    if callers < 1:
        raise Usage("--callers must be at least 1")
    most = math.inf if count is None else count
    if not (most >= 1 and duration > 0):
        raise Usage("--count must be at least 1, and --duration more than 0 seconds")
    if math.isinf(most) and math.isinf(duration):
        duration = DEFAULT_DURATION
    if plot is not None:
        benching.check_plot(plot)
    args, kwargs = parse_arguments(arguments)
    run = benching.Bench(
        _target(url, connection, metadata), method, args, kwargs, callers, most, duration
    )
    output = Output(as_json=json)
    try:
        trio_run(run.run, output)
    except KeyboardInterrupt:
        run.sum_up(output, plot)
        raise
    run.sum_up(output, plot)
    run.check()


app.command(help_epilogue=epilogue("top"))(top)


@app.command(help_epilogue=epilogue("instances"))
def instances(
    url: str,
    /,
    *more: str,
    watch: Switch = False,
    wait: float = 0.5,
    connection: Connection = DEFAULT_CONNECTION,
    json: Json = False,
) -> None:
    """List the instances of a service, and whether each can be reached.

    Args:
        url: As for call; dns+tcp://name:port lists each address of a name, and
            nats://host,host/service the instances that serve behind NATS, with their own URLs.
        more: URLs of other instances, as --also.
        watch: Print the list again after each change, until Ctrl-C. Not for NATS.
        wait: Seconds in which instances behind NATS answer.
        connection: How to connect.
        json: Print one JSON list per line, for scripts; for NATS, one object for each instance.
    """
    if not (math.isfinite(wait) and wait > 0):
        raise Usage("--wait must be a number of seconds, more than 0")
    if is_nats(url):
        if watch or more or connection.also:
            raise Usage("with nats://, neither --watch nor other URLs can be used")
        context = connection.context()
        trio_run(behind_nats.instances, url, context, Output(as_json=json), wait=wait)
        return
    connection = dataclasses.replace(connection, also=[*connection.also, *more])
    target = Target(url=url, connection=connection)
    trio_run(list_instances, target, Output(as_json=json), watch=watch)


def _target(
    url: str, connection: Connection, metadata: Sequence[str] | None, *, trace: bool = False
) -> Target:
    entries = parse_metadata(metadata or ())
    return Target(url=url, connection=connection, metadata=entries, trace=trace)
