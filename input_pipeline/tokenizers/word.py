"""Words as tokens: the most frequent words of the data, with their counts.

A word is a run of letters, digits and underscores; an apostrophe or a hyphen
may join two such runs: "don't", "well-known", "x_1". All other characters
separate words and are lost, as is case under `lower`. Text in a script without
spaces between words is not split.
"""

import collections
import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Iterable

import numpy as np

from common.files import cache_folder, write_atomically
from input_pipeline.bad_records import Policy, identify
from input_pipeline.sources import open_source
from input_pipeline.sources.parts.documents import texts
from input_pipeline.tokenizers import Corpus, Tokenizer, read

FORMS = ("word?vocab_size=N&min_count=N&lower=1", "word")
FILE = "tokenizer.json"
UNKNOWN = "<unk>"
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_OPTIONS = {"vocab_size": 30_000, "min_count": 5, "lower": 1}


def words(text: str | bytes, lower: bool) -> list[str]:
  """Returns the words of a text, in order."""
  text = text.decode("utf-8") if isinstance(text, bytes) else text
  return _WORD.findall(text.lower() if lower else text)


def learn(
  spec: str, corpus: Corpus, cache_dir: str | None, policy: Policy
) -> bytes:
  """Returns the words of the train splits as JSON, most frequent first.

  They are read from the cache if possible. Words of equal frequency are in the
  order of their code points.

  Args:
    spec: "word?vocab_size=30000&min_count=5&lower=1": the largest vocabulary,
      including <unk>; the least count of a word; whether to lower-case.
    corpus: (URI, text_key) of each data set.
    cache_dir: see `files.cache_folder`.
    policy: how bad records are handled.

  Raises:
    ValueError: an option is wrong, or no word is frequent enough.
  """
  options = _options(spec)
  sources = [open_source(uri, "train", policy) for uri, _ in corpus]
  fingerprints = [source.fingerprint for source in sources]
  identity = ["word", list(corpus), fingerprints, options, *identify(policy)]
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
  path = os.path.join(cache_folder(cache_dir), f"{digest}.words.json")
  if os.path.exists(path):
    return read(path)
  lower = bool(options["lower"])
  counts: collections.Counter = collections.Counter()
  for source, (uri, text_key) in zip(sources, corpus, strict=True):
    for text in texts(source, text_key, uri, policy):
      counts.update(words(text, lower))
  kept = [each for each in counts.items() if each[1] >= options["min_count"]]
  kept.sort(key=lambda each: (-each[1], each[0]))
  kept = kept[: options["vocab_size"] - 1]
  if not kept:
    where = ", ".join(uri for uri, _ in corpus)
    raise ValueError(
      f"tokenizer {spec!r} on {where}: no word occurs "
      f"min_count={options['min_count']} times"
    )
  names, numbers = zip(*kept, strict=True)
  learned = {"lower": lower, "words": names, "counts": numbers}
  content = json.dumps(learned, ensure_ascii=False).encode()
  write_atomically(path, [content])
  return content


def _options(spec: str) -> dict[str, int]:
  """Returns the options that the spec sets."""
  options = dict(_OPTIONS)
  query = spec.partition("?")[2]
  for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
    if key not in options:
      raise ValueError(
        f"tokenizer {spec!r}: no option {key!r}; valid: {', '.join(options)}"
      )
    if not re.fullmatch("[0-9]{1,9}", value):
      raise ValueError(f"tokenizer {spec!r}: {key} is not a count")
    options[key] = int(value)
  for key, least in (("vocab_size", 2), ("min_count", 1)):
    if options[key] < least:
      raise ValueError(f"tokenizer {spec!r}: {key} is below {least}")
  if options["lower"] > 1:
    raise ValueError(f"tokenizer {spec!r}: lower is 0 or 1")
  return options


def load(spec: str, content: bytes) -> Tokenizer:
  """Returns the tokenizer; id 0 is <unk>, which represents all other words.

  Its `counts` are those of the words in the training text; that of <unk>, which
  is not a word, is 0.

  Raises:
    ValueError: the spec or the content is malformed.
  """
  _options(spec)
  lower, known, counts = _checked(content)
  names = (UNKNOWN, *known)
  ids = {word: i for i, word in enumerate(known, 1)}

  def encode(text: str | bytes) -> np.ndarray:
    found = [ids.get(word, 0) for word in words(text, lower)]
    return np.array(found, np.int32)

  def decode(ids: Iterable[int]) -> str:
    return " ".join(names[int(i)] for i in ids)

  return Tokenizer(
    spec,
    encode,
    decode,
    len(names),
    None,
    np.array([0, *(len(word.encode()) for word in known)], np.uint32),
    "tokenizer.json",
    content,
    np.array([0, *counts], np.int64),
  )


def _checked(content: bytes) -> tuple[bool, list[str], list[int]]:
  """Returns (lower, words, counts) of the JSON."""
  try:
    kept = json.loads(content)
    lower, known, counts = (kept[k] for k in ("lower", "words", "counts"))
    right = type(lower) is bool and len(known) == len(counts) > 0
    right &= all(type(n) is int and 0 < n < 2**62 for n in counts)
    right &= all(words(word, lower) == [word] for word in known)
    if not right or len(set(known)) < len(known):
      raise ValueError("not words and counts")
    "".join(known).encode()  # not a lone surrogate
  except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
    raise ValueError(
      "tokenizer.json does not hold words and their counts"
    ) from None
  return lower, known, counts
