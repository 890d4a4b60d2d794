"""What tasks share; a config cannot name these files."""
