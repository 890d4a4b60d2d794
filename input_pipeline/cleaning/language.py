"""Identification of the language of a document, and selection by it."""

import functools
import re
from typing import NamedTuple

from input_pipeline.document import Counted, Document, Dropped, Result, Stage

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")
_KANA = re.compile("[\u3041-\u309f\u30a1-\u30fa\u31f0-\u31ff\uff66-\uff9d]")
_HANGUL = re.compile("[\uac00-\ud7a3\u1100-\u11ff\u3131-\u318e]")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|[\w.+-]{1,64}@[\w-]+\.[\w.-]+")
# The number of Latin letters that carry as much as a Han character or kana.
_WEIGHT = 2.5
# Japanese prose is more than a third kana, Chinese has next to none; a title
# in Japanese may have a few.
_JAPANESE = 0.1
# Sums of float32 differ between machines in later decimals only.
_DECIMALS = 2
# More letters hardly change the answer, and time grows with them.
MAX_CHARACTERS = 1000


class _Settings(NamedTuple):
  keep: frozenset[str] | None
  min_score: float
  max_characters: int


def language(
  keep: tuple[str, ...] | None = ("zh", "en"),
  min_score: float = 0.0,
  max_characters: int = MAX_CHARACTERS,
) -> Stage:
  """A stage that sets fields["lang"] and keeps documents of some languages.

  fields["lang"] is an ISO 639-1 code. Text in Han characters, kana or Hangul is
  identified by the shares of the three scripts, which is more reliable on short
  texts than a model. Other text is identified by py3langid (naive Bayes over
  byte n-grams; Lui and Baldwin, 2012). fields["lang_score"], from 0 to 1, is
  the share of the script among the letters, or the model's probability.

  Counts "lang_XX" of the documents kept, and drops the others as "no_letters",
  "other_language" and "unsure_language".

  Args:
    keep: the languages to keep; None keeps all.
    min_score: documents with a lower score are dropped.
    max_characters: the number of characters to look at, from the beginning.

  Raises:
    ValueError: a setting is wrong, or py3langid is not installed.
  """
  if isinstance(keep, str) or (keep is not None and not keep):
    raise ValueError(
      f'language: keep={keep!r} is neither None nor a list such as ("zh", "en")'
    )
  if not 0 <= min_score <= 1:
    raise ValueError(f"language: min_score={min_score!r} is not from 0 to 1")
  if max_characters < 1:
    raise ValueError(
      f"language: max_characters={max_characters!r} is not positive"
    )
  known = set(_identifier().labels)
  for name in keep or ():
    if name not in known:
      raise ValueError(
        f"language: keep has {name!r}, which is not an ISO 639-1 code of a"
        " known language, such as 'en' or 'zh'"
      )
  settings = _Settings(
    None if keep is None else frozenset(keep), min_score, max_characters
  )
  return functools.partial(_judge, settings)


@functools.cache
def _identifier():
  """py3langid's model with probabilities, loaded once a process."""
  try:
    from py3langid import langid
  except ImportError as error:
    raise ValueError(
      "language needs py3langid, which is not installed: pip install"
      " -e '.[clean]'"
    ) from error
  return langid.LanguageIdentifier.from_model_file(
    langid.MODEL_FILE, norm_probs=True
  )


def identify(text: str) -> tuple[str, float] | None:
  """(ISO 639-1 code, score 0..1) of a text; None if it has no letter."""
  if "@" in text or "www." in text or "://" in text:
    text = _ADDRESS.sub(" ", text)
  letters = sum(map(str.isalpha, text))
  if not letters:
    return None
  han, kana, hangul = (
    0 if text.isascii() else len(pattern.findall(text))
    for pattern in (_HAN, _KANA, _HANGUL)
  )
  by_script = han + kana + hangul
  others = max(letters - by_script, 0)
  if by_script * _WEIGHT > others:
    if hangul * 2 > by_script:
      name = "ko"
    elif kana > _JAPANESE * (han + kana):
      name = "ja"
    else:
      name = "zh"
    weight = by_script * _WEIGHT
    return name, round(weight / (weight + others), _DECIMALS)
  name, score = _identifier().classify(text)
  return str(name), round(float(score), _DECIMALS)


def _judge(settings: _Settings, document: Document) -> Result:
  found = identify(document.text[: settings.max_characters])
  if found is None:
    return Dropped("no_letters")
  name, score = found
  if settings.keep is not None and name not in settings.keep:
    return Dropped("other_language", name)
  if score < settings.min_score:
    return Dropped("unsure_language", name)
  fields = {**document.fields, "lang": name, "lang_score": score}
  return Counted(document._replace(fields=fields), {f"lang_{name}": 1})
