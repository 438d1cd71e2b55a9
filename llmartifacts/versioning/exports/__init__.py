"""Exports: chosen collections, or all, as one file; and back, into this registry or another one."""
