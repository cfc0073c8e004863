"""The sans-I/O core: which messages may be sent and received, and when. No await, clock or Trio."""
