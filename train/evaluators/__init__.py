"""Evaluators: metrics of a split. An evaluator is named after its file."""
