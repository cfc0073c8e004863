"""Packets over WebSocket."""
