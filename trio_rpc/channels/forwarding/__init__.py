"""Forwarding: many channels over one."""
