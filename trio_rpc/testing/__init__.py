"""Fakes and conformance suites, for this project and for its users."""
