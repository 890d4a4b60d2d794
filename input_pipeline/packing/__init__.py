"""From documents to rows of tokens: token files, windows, packed rows."""
