"""wordpiece:PATH, a vocab.txt or tokenizer.json (Wu et al., 2016)."""

from input_pipeline.tokenizers.parts.huggingface import load

__all__ = ["FILE", "FORMS", "load"]

FORMS = ("wordpiece:PATH",)
FILE = "tokenizer.json"
