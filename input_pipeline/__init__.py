"""Raw examples -> batches."""
