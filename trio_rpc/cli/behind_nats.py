"""The command ``instances``: list the instances behind NATS."""

from __future__ import annotations

import ssl
from typing import Any

from trio_rpc.cli.exits import Unreachable, Usage
from trio_rpc.cli.output import Output
from trio_rpc.cli.terminal import safe
from trio_rpc.errors import RpcError
from trio_rpc.nats.addresses import parse_nats_url
from trio_rpc.nats.nats import own_nats
from trio_rpc.nats.nats_options import NatsOptions

__all__ = ["instances"]


async def instances(
    url: str, context: ssl.SSLContext | None, output: Output, *, wait: float
) -> None:
    """Print the instances that serve.

    Args:
        url: ``nats://host,host/service``.
        context: insists on TLS with the NATS servers; None to follow the servers.
        output: prints the instances.
        wait: seconds in which they answer.

    Raises:
        Usage: the URL is invalid.
        Unreachable: there is no NATS server, or no instance.
    """
    try:
        address = parse_nats_url(url, needs_service=True)
    except ValueError as exc:
        raise Usage(safe(exc)) from exc
    try:
        async with own_nats(address, NatsOptions(ssl_context=context)) as nats:
            found = await nats.find_instances(address.service, seconds=wait)
    except (OSError, RpcError) as exc:
        raise Unreachable(safe(exc)) from exc
    if not found:
        raise Unreachable(f"nobody serves {address}")
    for each in found:
        if output.as_json:
            facts: dict[str, Any] = {"instance": each.instance, "urls": list(each.urls)}
            output.json(facts)
        else:
            output.line("  ".join((each.instance, *(safe(at) for at in each.urls))))
