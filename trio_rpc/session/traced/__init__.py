"""The parts of a session that tell a trace what they do. A session without a trace has none."""
