"""Optimizers, schedules, and rules that choose parameters by path."""
