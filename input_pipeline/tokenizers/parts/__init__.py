"""What goes with tokenizers: special tokens, offsets, chat templates."""
