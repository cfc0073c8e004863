"""``python -m tests.fuzz``: search for input that a parser does not expect, guided by coverage."""
