"""Code that several stages share, or that a long stage consists of."""
