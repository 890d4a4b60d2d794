"""Experiments, one file each: `get_config(arg)` returns plain data."""

# Not experiments: what they share, and recipes of input_pipeline.prepare.
SHARED = ("common", "data")
