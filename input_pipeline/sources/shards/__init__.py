"""Sources of the shards that other training libraries write."""
