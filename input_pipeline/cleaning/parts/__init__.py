"""What several stages share, or what a long one is made of."""
