"""Evaluators: what is measured. An evaluator's name is its file."""
