"""Small parts that do not depend on sessions."""
