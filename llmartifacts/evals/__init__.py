"""Evaluation: what a target gives for the items of a dataset, scored and counted."""
