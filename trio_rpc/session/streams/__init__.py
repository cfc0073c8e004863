"""Streams, duplexes, remote scopes and started tasks: calls that last longer than one answer."""
