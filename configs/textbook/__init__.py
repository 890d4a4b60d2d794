"""The examples of textbooks, replayed."""
