"""Learners: how it is learned. A learner's name is its file."""
