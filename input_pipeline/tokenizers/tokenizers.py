"""Any tokenizer.json of Hugging Face's library: tokenizers:PATH."""

from input_pipeline.tokenizers.parts.huggingface import load

__all__ = ["FILE", "FORMS", "load"]

FORMS = ("tokenizers:PATH.json",)
FILE = "tokenizer.json"
