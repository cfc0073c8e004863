"""Wire format: messages, codec, type registry, framing. No I/O, no Trio."""
