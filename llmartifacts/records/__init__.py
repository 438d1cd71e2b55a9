"""Frozen records and the pure rules on them. Nothing here reads or writes anything."""
