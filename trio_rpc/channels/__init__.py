"""Transports: each is a trio.abc.Channel[bytes] that carries whole packets."""
