"""Conformance suites for the sockets, and parts for tests; the extra `[testing]` brings what they need."""
