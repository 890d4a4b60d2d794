"""Functions that several kinds of rows share."""
