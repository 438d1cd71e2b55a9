"""Service start: references in, one consistent, verified, typed set out; or one error naming every failure."""
