"""Makes rows of tokens from documents: token files, windows, packed rows."""
