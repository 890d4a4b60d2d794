"""Reads raw files as streams of documents; one module for each URI scheme."""
