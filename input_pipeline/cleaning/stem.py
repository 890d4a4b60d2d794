"""Stemming of words."""

import functools
import re

from input_pipeline.document import Document, Stage

# ISO 639 codes of Snowball's algorithms.
_CODES = {
  "ar": "arabic",
  "ca": "catalan",
  "cs": "czech",
  "da": "danish",
  "de": "german",
  "el": "greek",
  "en": "english",
  "eo": "esperanto",
  "es": "spanish",
  "et": "estonian",
  "eu": "basque",
  "fa": "persian",
  "fi": "finnish",
  "fr": "french",
  "ga": "irish",
  "hi": "hindi",
  "hu": "hungarian",
  "hy": "armenian",
  "id": "indonesian",
  "it": "italian",
  "lt": "lithuanian",
  "ne": "nepali",
  "nl": "dutch",
  "no": "norwegian",
  "pl": "polish",
  "pt": "portuguese",
  "ro": "romanian",
  "ru": "russian",
  "sr": "serbian",
  "sv": "swedish",
  "ta": "tamil",
  "tr": "turkish",
  "yi": "yiddish",
}
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def stem(language: str | None = None) -> Stage:
  """A stage that stems every word with Snowball (Porter, 2001).

  For bags of words: "connected" and "connections" become "connect". Words are
  lower-cased, as Snowball handles lower case only.

  Args:
    language: an ISO 639 code such as "en". None takes fields["lang"] of the
      document; documents in a language without an algorithm, such as Chinese,
      do not change.

  Raises:
    ValueError: there is no algorithm for the language, or snowballstemmer is
      not installed.
  """
  known = set(_import_snowball().algorithms())
  if language is not None and _CODES.get(language) not in known:
    valid = ", ".join(code for code, name in _CODES.items() if name in known)
    raise ValueError(
      f"stem: language={language!r} has no algorithm; valid: {valid}"
    )
  return functools.partial(_stem, language)


def _import_snowball():
  try:
    import snowballstemmer
  except ImportError:
    raise ValueError(
      "stem needs snowballstemmer, which is not installed: "
      "pip install -e '.[clean]'"
    ) from None
  return snowballstemmer


@functools.lru_cache(maxsize=2**17)
def _stemmed(algorithm: str, word: str) -> str:
  # A stemmer holds the word it works on, so threads must not share one.
  return _import_snowball().stemmer(algorithm).stemWord(word.lower())


@functools.lru_cache(maxsize=1)
def _algorithms() -> frozenset[str]:
  return frozenset(_import_snowball().algorithms())


def _stem(language: str | None, document: Document) -> Document:
  algorithm = _CODES.get(language or document.fields.get("lang"))
  if algorithm not in _algorithms():
    return document

  def stemmed(match: re.Match) -> str:
    return _stemmed(algorithm, match[0])

  return document._replace(text=_WORD.sub(stemmed, document.text))
