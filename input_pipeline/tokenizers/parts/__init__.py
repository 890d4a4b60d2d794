"""Additions to tokenizers: special tokens, offsets, chat templates."""
