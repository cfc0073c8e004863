"""Certificates for servers on loopback."""

from __future__ import annotations

import ssl

import trustme


def make_contexts(
    *names: str, ca: trustme.CA | None = None
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of a server, and of a client that trusts it.

    Args:
        *names: host names of the server; those of loopback by default.
        ca: the certificate authority; a new one by default.
    """
    ca = ca or trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return server, client
