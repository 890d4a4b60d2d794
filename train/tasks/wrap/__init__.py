"""Wrappers of tasks: a function from Task to Task, named after its file."""
