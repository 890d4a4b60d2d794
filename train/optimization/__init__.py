"""Optimizers, schedules, and rules that select parameters by their paths."""
