"""Features and embeddings of images, with or without labels."""
