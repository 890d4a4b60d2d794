"""Text generation: sampling, beam search, streaming and chat."""
