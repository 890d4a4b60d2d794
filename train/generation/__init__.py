"""Text from a trained model: sampling, beam search, streaming, chat."""
