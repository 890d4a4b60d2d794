"""wordpiece:PATH: a vocab.txt or tokenizer.json (Wu et al., 2016)."""

from input_pipeline.tokenizers.parts.huggingface import load, path_of

__all__ = ["FILE", "FORMS", "load", "path_of"]

FORMS = ("wordpiece:PATH",)
FILE = "tokenizer.json"
