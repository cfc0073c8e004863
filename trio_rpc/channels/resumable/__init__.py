"""Channels that outlive their connections."""
