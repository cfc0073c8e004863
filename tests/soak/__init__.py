"""A soak: real processes, mixed traffic over every transport, and faults, for minutes on end.

``python -m tests.soak --minutes 10 --seed 7`` plays it. Modules, from the lowest:

- ``ledger`` keeps the calls and the runs of handlers, and compares both.
- ``service`` is the service of the servers, and ``serving`` is their program.
- ``traffic`` is a client's work in a session.
- ``lanes`` open sessions over one transport each, again and again. NATS has a real broker.
- ``levels`` watch memory, descriptors and tasks.
"""
