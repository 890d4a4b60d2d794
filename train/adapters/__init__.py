"""Adapters of large models. An adapter is named after its file."""
