"""Experiments with images, by what they do."""
