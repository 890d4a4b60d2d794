"""The stages of `prepare`: a name in config.stages is a file here."""
