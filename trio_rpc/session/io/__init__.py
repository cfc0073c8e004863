"""The two sides of a session's channel: the writer and the receiver."""
