"""Language models: predict the next token."""
