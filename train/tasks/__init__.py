"""Tasks: what is learned. A task's name is that of its file."""
