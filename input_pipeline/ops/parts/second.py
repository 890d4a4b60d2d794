"""The record of the second source within an example; see batching/second.py."""

# Begins the names of its fields.
PREFIX = "second/"
