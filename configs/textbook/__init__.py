"""Textbook examples."""
