"""How alike texts are: their hashes, n-grams, MinHash values and sketches."""
