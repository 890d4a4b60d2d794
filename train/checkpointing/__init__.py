"""Durability: saves, digests, recovery, batches that are skipped."""
