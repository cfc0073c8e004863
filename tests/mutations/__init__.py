"""Small faults that are applied to a copy of the tree, and the tests that must notice them.

``python -m tests.mutations --help`` shows how to run it. The table is in ``faults/``, by area.
A fault that no test notices is a missing test.
"""
