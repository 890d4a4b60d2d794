"""Tasks that learn representations: embeddings and self-supervision."""
