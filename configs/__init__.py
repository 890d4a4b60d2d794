"""Experiments, one per file: `get_config(arg)` returns a ConfigDict."""

# Not experiments: shared functions, and recipes of input_pipeline.prepare.
SHARED = ("common", "data")
