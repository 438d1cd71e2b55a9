"""One file a format: `read` yields rows with their origin, `write` the inverse."""
