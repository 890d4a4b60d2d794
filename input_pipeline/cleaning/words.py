"""Words, sentences and lines of a text, as the quality rules count them.

A token is a word, a number, an address or a mark. Marks count as tokens of
their own and clitics ("n't", "'s") are split off, as in the tokenizers behind
the published thresholds (Penn Treebank, spaCy); a hyphen or a slash between
letters ends a word.
"""

import functools
import re
from collections.abc import Sequence

from input_pipeline.preparation.document import Document

# Abbreviations of English whose full stop ends no sentence.
_ABBREVIATIONS = (
  "Adm|Bros|Co|Corp|Dr|Gen|Gov|Inc|Jr|Lt|Ltd|Messrs|Mr|Mrs|Ms|Mt|Prof|Rep"
  "|Rev|Sen|Sr|St|vs|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec"
)
_TOKEN = re.compile(
  rf"""
    (?:https?://|www\.)\S*[\w/]           # an address, without its full stop
  | [\w.+-]{{1,64}}@[\w-]+(?:\.[\w-]+)+
  | (?:[^\W\d_]\.){{2,}}                  # U.S.
  | (?<!\w)(?-i:[A-Z])\.(?!\w)            # an initial
  | (?<!\S)(?:[/.@]|-+)\w+                # /usr, .txt, @name, --option
  | [:;]-?[()]
  | (?:{_ABBREVIATIONS})\.
  | [^\W\d_]+?(?=n['’]t\b)                # do|n't
  | n['’]t\b
  | ['’](?:s|m|d|re|ve|ll)\b
  | \d+(?:[.,:/]\d+)*[^\W\d_]*            # 3.14, 7/4/1776, 80s
  | [^\W\d_]\w*                           # robots.txt, MPEG-4, d'accord
    (?:\.(?-i:[a-z\d])\w*|-\d\w*|['’](?!(?:s|m|d|re|ve|ll)\b)[^\W\d_]\w*)*
  | \.{{2,}}
  | -{{2,}}
  | \w+
  | [^\w\s]
  """,
  re.VERBOSE | re.IGNORECASE,
)

# Marks that end a sentence (Unicode's Sentence_Terminal), of living scripts.
TERMINAL_MARKS = tuple(".!?。！？．｡﹒﹖﹗‼⁇⁈⁉‽؟۔܀।॥။၊።፧፨។៕᠃᠉։")
_SENTENCE_ENDS = frozenset(TERMINAL_MARKS)


@functools.lru_cache(maxsize=1)
def words(text: str) -> tuple[str, ...]:
  """The tokens of a text, in order.

  The last text is remembered, since the rules of several stages ask for the
  same document one after another.
  """
  return tuple(_TOKEN.findall(text))


def sentence_count(text: str) -> int:
  """How many sentences a text has; 0 if it has no token.

  A sentence ends with a mark of its own (not that of an abbreviation) and
  begins with the next word.
  """
  count, ended = 0, True
  for token in _TOKEN.findall(text):
    if token in _SENTENCE_ENDS:
      count, ended = max(count, 1), True
    elif ended and any(map(str.isalnum, token)):
      count, ended = count + 1, False
  return count


def repeated(parts: Sequence[str]) -> tuple[int, int]:
  """Of parts that stood there before: (how many, characters in them)."""
  seen, count, characters = set(), 0, 0
  for part in parts:
    if part in seen:
      count += 1
      characters += len(part)
    else:
      seen.add(part)
  return count, characters


def passes_over(document: Document, languages: Sequence[str] | None) -> bool:
  """Whether a rule for these languages leaves the document alone.

  A document whose language no stage has found out is judged.
  """
  if languages is None:
    return False
  return document.fields.get("lang", languages[0]) not in languages


def check_languages(stage: str, languages: Sequence[str] | None) -> None:
  """Raises ValueError unless `languages` is None or a sequence of names."""
  if languages is not None and (isinstance(languages, str) or not languages):
    raise ValueError(
      f"{stage}: languages {languages!r} is neither None nor a list such as"
      ' ("en",)'
    )
