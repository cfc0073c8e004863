"""Small faults, each put into a copy of the tree, and the tests that have to notice it.

``python -m tests.mutations --help`` tells how to run it; the table is in ``faults/``, split by area.
A fault that no test notices is a missing test.
"""
