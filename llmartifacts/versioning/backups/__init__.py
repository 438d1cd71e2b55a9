"""Backups of a whole registry: taken while it is used, listed, checked, thinned out, restored."""
