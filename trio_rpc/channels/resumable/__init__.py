"""Channels that survive the loss of their connections."""
