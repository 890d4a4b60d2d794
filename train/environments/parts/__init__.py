"""What environments share; a config cannot name these files."""
