"""Tasks: what is learned. A task's name is the file that defines it."""
