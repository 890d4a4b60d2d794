"""Language models: next-token prediction and blank infilling."""
