"""Recipes of `python -m input_pipeline.prepare`, one per file."""
