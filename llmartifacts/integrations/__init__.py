"""One file per outside system, each importing it only there."""
