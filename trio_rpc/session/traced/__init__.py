"""The parts of a session that report to a trace. A session without a trace has none."""
