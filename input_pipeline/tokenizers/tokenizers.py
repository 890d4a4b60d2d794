"""tokenizers:PATH: any tokenizer.json of Hugging Face's library."""

from input_pipeline.tokenizers.parts.huggingface import (
  encoder_of_special,
  load,
  path_of,
  special,
)

__all__ = [
  "FILE",
  "FORMS",
  "encoder_of_special",
  "load",
  "path_of",
  "special",
]

FORMS = ("tokenizers:PATH.json",)
FILE = "tokenizer.json"
