"""Calls: those that we make, those that we serve, and what both need."""
