"""Code that the writers share; config.writers cannot name these files."""
