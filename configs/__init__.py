"""Experiments, one file each: `get_config(arg)` returns plain data."""
