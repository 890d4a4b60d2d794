"""Wrappers of learners, from Learner to Learner, named after their files."""
