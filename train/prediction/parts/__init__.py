"""What the kinds of predictions share: the data, and the files written."""
