"""Formats of raw files: the scheme of a URI is the name of a file here.

A format is a function `read(path, *, text_key, policy, name)` that yields the
documents of a file and what is bad in it. A format that needs a library beside
the core names it: `NEEDS = "pyarrow"`. One whose files are not given by a glob
has `files()` and `root()` of its own.
"""
