"""The tests that are slow: they start programs or a browser, or try very many cases.

``-m "not slow"`` leaves them out. A test may also bear the marker itself.
"""

from __future__ import annotations

MODULES = {
    "test_benchmarks.py",
    "test_browser.py",
    "test_cuts.py",
    "test_demo.py",
    "test_examples.py",
    "test_gateway_serving.py",
    "test_resumption_drill.py",
    "test_standard_streams.py",
    "test_typing.py",
}
"""Modules whose tests are slow, all but a few."""

TESTS = {
    "test_forwarding.py": {"test_a_carrier_cut_at_any_byte_breaks_everything_and_hangs_nowhere"},
    "test_mutations.py": {
        "test_a_fault_is_noticed_or_survives_and_the_checkout_is_not_touched",
    },
    "test_protocol_model.py": {"runTest"},
    "test_readme.py": {"test_commands_of_the_readme_do_what_they_say_as_they_are_pasted"},
    "test_session_model.py": {"test_sessions_over_a_channel_that_delays"},
}
"""Slow tests of other modules."""


def is_slow(module, test):
    """Tell whether a test is slow, by the name of its file and its own."""
    return module in MODULES or test in TESTS.get(module, ())
