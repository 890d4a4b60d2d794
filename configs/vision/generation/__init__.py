"""New images, from noise, classes or captions."""
