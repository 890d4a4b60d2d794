"""Networks that read rows of numbers."""
