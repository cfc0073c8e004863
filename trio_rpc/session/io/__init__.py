"""The two sides of the channel: who writes to it, and who receives from it."""
