"""tokenizers:PATH: any tokenizer.json of Hugging Face's library."""

from input_pipeline.tokenizers.parts.huggingface import load, path_of

__all__ = ["FILE", "FORMS", "load", "path_of"]

FORMS = ("tokenizers:PATH.json",)
FILE = "tokenizer.json"
