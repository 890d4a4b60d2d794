"""What the writers share; no name of config.writers."""
