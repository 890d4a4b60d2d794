"""Learners: training algorithms. A learner is named after its file."""
