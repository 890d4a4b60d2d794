"""Raw files to documents, as streams: a scheme of a URI is a file here."""
