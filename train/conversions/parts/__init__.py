"""Code shared by the families of pretrained weights."""
