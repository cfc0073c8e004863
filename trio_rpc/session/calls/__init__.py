"""Outgoing calls, incoming calls, and the parts that both need."""
