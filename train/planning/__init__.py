"""Predicts a run's memory, time and cost before it starts."""
