"""Measure the cost of calls, as a ratio to a hand-written minimum: see README.md in this folder."""
