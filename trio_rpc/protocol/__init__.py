"""The sans-I/O core: what may be sent and received when. No await, no clock, no Trio."""
