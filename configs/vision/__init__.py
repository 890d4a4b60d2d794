"""Image classification and generation."""
