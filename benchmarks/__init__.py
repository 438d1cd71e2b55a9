"""The budgets of the design, each measured beside its floor: `python -m benchmarks --help`."""
