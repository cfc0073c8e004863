"""The program of the soak's servers: ``python -m tests.soak.serving LEDGER [CERTIFICATE] URL...``.

It prints its URLs as one JSON line once it listens. SIGTERM drains it. With ``--child`` instead of
URLs it serves the process that started it.
"""

from __future__ import annotations

import json
import signal
import ssl
import sys
from functools import partial
from pathlib import Path

import trio

import trio_rpc

from .ledger import Ledger
from .service import Service

DRAIN_SECONDS = 2.0
RESUME = trio_rpc.Resume(grace=30, first_delay=0.01, max_delay=0.2)


def main(ledger: str, certificate: str, *urls: str) -> None:
    service = Service(Ledger(Path(ledger)))
    if not urls:
        trio.run(trio_rpc.serve_parent, service)
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    trio.run(partial(_serve, service, urls, context))


async def _serve(service: Service, urls: tuple[str, ...], context: ssl.SSLContext) -> None:
    secure = [url for url in urls if url.startswith(("tls:", "wss:"))]
    plain = [url for url in urls if url not in secure]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with (
            trio_rpc.open_server(service, *plain, resume=RESUME) as first,
            trio_rpc.open_server(service, *secure, ssl_context=context, resume=RESUME) as second,
        ):
            print(json.dumps([*first.urls, *second.urls]), flush=True)
            async for _ in signals:
                async with trio.open_nursery() as nursery:
                    for server in (first, second):
                        nursery.start_soon(partial(server.drain, grace=DRAIN_SECONDS))
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
