"""Adapters of large models. An adapter's name is that of its file."""
