"""Learners: how it is learned. A learner's name is that of its file."""
