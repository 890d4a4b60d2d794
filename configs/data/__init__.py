"""Recipes of `python -m input_pipeline.prepare`, one a file."""
