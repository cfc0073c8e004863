"""Certificates for servers on loopback."""

from __future__ import annotations

import ssl

import trustme


def make_contexts():
    """Return the contexts of a server, and of a client that trusts it."""
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return server, client
