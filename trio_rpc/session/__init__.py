"""The Trio driver: the only code that starts tasks."""
