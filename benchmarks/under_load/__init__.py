"""``python -m benchmarks.under_load``: a server's capacity, and the cost of hostile clients."""
