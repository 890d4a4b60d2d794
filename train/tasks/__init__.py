"""Tasks: losses and predictions. A task is named after its file."""

SHARED = ("wrap",)  # named in config.task.wrap instead
