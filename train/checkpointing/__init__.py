"""Checkpoints: saving, digests, recovery and skipped batches."""
