"""Learners: training algorithms. A learner is named after its file."""

SHARED = ("wrap",)  # named in config.learner.wrap instead
