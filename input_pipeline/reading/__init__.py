"""Reads raw files as streams of documents."""
