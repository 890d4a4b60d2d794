"""Raw files to documents, as streams."""
