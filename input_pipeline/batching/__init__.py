"""Builds batches from examples: order, mixture, ops, and device placement."""
