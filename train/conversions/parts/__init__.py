"""What the families of pretrained weights share."""
