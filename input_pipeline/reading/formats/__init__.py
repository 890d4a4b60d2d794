"""Formats of raw files: the scheme of a URI is the name of a file here.

A format is a function `read(path, *, text_key, policy, name)` that yields the
documents of a file and reports its bad records. A format that needs an optional
library names it: `NEEDS = "pyarrow"`. A format whose files are not given by a
glob defines `files()` and `root()`.
"""
