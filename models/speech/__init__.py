"""Networks that read or produce sounds."""
