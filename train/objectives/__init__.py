"""Losses and metrics: pure functions of arrays."""
