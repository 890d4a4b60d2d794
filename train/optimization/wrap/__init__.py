"""Wrappers of optimizers, from Optimizer to Optimizer, named after files."""
