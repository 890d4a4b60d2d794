"""Images classified and generated."""
