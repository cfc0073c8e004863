"""The command ``health``: ask a server whether it can do its work."""

from __future__ import annotations

from typing import Any

import trio

from trio_rpc.cli.calling import failing_as_one_line
from trio_rpc.cli.connecting import Target, connected
from trio_rpc.cli.exits import CallFailed, CommandError, Unreachable
from trio_rpc.cli.output import Output
from trio_rpc.cli.terminal import safe
from trio_rpc.cli.through_gateway import GatewayCalls
from trio_rpc.errors import MethodNotFound
from trio_rpc.pool.pool import Pool
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.session.session import Session

__all__ = ["check_health"]


async def check_health(
    target: Target, output: Output, *, service: str, named: str, patience: float
) -> None:
    """Print the status of a service.

    Args:
        target: the server.
        output: prints the status.
        service: the service to ask for; "" for the server as a whole.
        named: the name of the server's health service.
        patience: seconds for all of this.

    Raises:
        CommandError: the service is not serving, or there is no answer.
    """
    has_connected = False
    name = f"{named}.check" if named else "check"
    try:
        with trio.fail_after(patience):
            async with connected(target) as session:
                has_connected = True
                with failing_as_one_line(name):
                    status = await _status(session, name, service)
    except trio.TooSlowError:
        failed = CallFailed if has_connected else Unreachable
        raise failed(f"{target.url}: no answer within {patience:g} s") from None
    if output.as_json:
        output.json({"url": target.url, "service": service, "status": status})
    else:
        output.line(safe(status, 100))
    if status != "serving":
        raise _NotServing("")


async def _status(session: Session | Pool | GatewayCalls, name: str, service: str) -> Any:
    try:
        return await RemoteMethod(session, name)(service=service)
    except MethodNotFound:
        if service or not isinstance(session, GatewayCalls):
            raise
        return await session.readiness()  # the gateway itself knows whether it drains


class _NotServing(CommandError):
    """The status has been printed, and the exit code says the rest."""
