"""A soak: real processes, mixed traffic over every transport, and faults, for minutes on end.

``python -m tests.soak --minutes 10 --seed 7`` plays it. Modules, from the lowest: ``ledger`` keeps
what was asked and what ran, and compares both; ``service`` is what the servers offer; ``serving``
is their program; ``traffic`` is what the clients do in a session; ``lanes`` open sessions over one
transport each, again and again; ``levels`` watch memory, descriptors and tasks.
"""
