"""From examples to batches: mixture, pipeline, devices."""
