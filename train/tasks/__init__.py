"""Tasks: losses and predictions. A task is named after its file."""
