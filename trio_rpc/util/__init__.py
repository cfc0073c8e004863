"""Small parts that know nothing of sessions."""
