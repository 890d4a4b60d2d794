"""tokenizers:PATH: any tokenizer.json of Hugging Face's library."""

__all__ = [
  *("FILE", "FORMS", "encoder_of_special", "load", "path_of", "special")
]

FORMS = ("tokenizers:PATH.json",)
FILE = "tokenizer.json"
