"""Adapters: few parameters that change a large model. A name is a file."""
