"""``python -m benchmarks.under_load``: what a server holds, and what strangers may cost it."""
