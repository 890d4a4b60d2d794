"""From raw records to a clean training set: the engine of `prepare`."""
