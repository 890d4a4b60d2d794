"""Code shared by the experiments with images."""
