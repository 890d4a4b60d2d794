"""Words, sentences and lines of a text, as the quality rules count them.

A token is a word, a number, an address or a punctuation mark. Clitics ("n't",
"'s") are separate tokens, as in the tokenizers behind the published thresholds
(Penn Treebank, spaCy). A hyphen or a slash between letters ends a word.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence

from input_pipeline.document import Document

# Abbreviations of English whose full stop ends no sentence.
_ABBREVIATIONS = (
  "Adm|Bros|Co|Corp|Dr|Gen|Gov|Inc|Jr|Lt|Ltd|Messrs|Mr|Mrs|Ms|Mt|Prof|Rep"
  "|Rev|Sen|Sr|St|vs|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec"
)
_CLITICS = "[sSmMdD]|[rR][eE]|[vV][eE]|[lL][lL]"
# Most words match the second line; it only makes matching faster.
_TOKEN = rf"""
    [cC]an(?=not\b)
  | [^\W\d_]++(?=[\s,;)])
  | (?:[^\W\d_]\.){{2,}}                  # U.S.
  | (?<!\w)[A-Z]\.(?!\w)                  # an initial
  | (?<!\S)(?:[/.@]|-+)\w+                # /usr, .txt, @name, --option
  | [:;]-?[()]
  | (?i:{_ABBREVIATIONS})\.
  | [^\W\d_]+?(?=[nN]['’][tT]\b)          # do|n't
  | [nN]['’][tT]\b
  | ['’](?:{_CLITICS})\b
  | \d+(?:[.,:/–]\d+)*[^\W\d_]*           # 3.14, 7/4/1776, 1914–1918, 80s
  | [^\W\d_]\w*                           # robots.txt, MPEG-4, d'accord
    (?:\.[a-z\d]\w*|-\d\w*|['’](?!(?:{_CLITICS})\b)[^\W\d_]\w*)*
  | \.{{2,}}
  | -{{2,}}
  | \w+
  | [^\w\s]
"""
_ADDRESS = r"""
    (?:[hH][tT][tT][pP][sS]?://|[wW]{3}\.)\S*[\w/]  # without its full stop
  | [\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+
"""
_PLAIN = re.compile(_TOKEN, re.VERBOSE)
# Looked for only in texts that hold one; it takes a tenth of the time.
_WITH_ADDRESSES = re.compile(f"{_ADDRESS}|{_TOKEN}", re.VERBOSE)
_ADDRESS_HINT = re.compile(r"://|[wW]{3}\.|@")

# Marks that end a sentence (Unicode's Sentence_Terminal), of living scripts.
TERMINAL_MARKS = tuple(".!?。！？．｡﹒﹖﹗‼⁇⁈⁉‽؟۔܀।॥။၊።፧፨។៕᠃᠉։")
_SENTENCE_ENDS = frozenset(TERMINAL_MARKS)


def _tokens(text: str) -> list[str]:
  with_address = _ADDRESS_HINT.search(text)
  return (_WITH_ADDRESSES if with_address else _PLAIN).findall(text)


@functools.lru_cache(maxsize=1)
def words(text: str) -> tuple[str, ...]:
  """The tokens of a text, in order.

  The last text is remembered, since the rules of several stages ask for the
  same document one after another.
  """
  return tuple(_tokens(text))


def sentence_count(text: str) -> int:
  """Returns the number of sentences of a text; 0 if it has no token.

  A sentence ends with a mark of its own (not that of an abbreviation) and
  begins with the next word.
  """
  count, ended = 0, True
  for token in _tokens(text):
    if token in _SENTENCE_ENDS:
      count, ended = max(count, 1), True
    elif ended and any(map(str.isalnum, token)):
      count, ended = count + 1, False
  return count


def repeated(parts: Sequence[str]) -> tuple[int, int]:
  """Returns (number, characters) of the parts that equal an earlier one."""
  seen, count, characters = set(), 0, 0
  for part in parts:
    if part in seen:
      count += 1
      characters += len(part)
    else:
      seen.add(part)
  return count, characters


def ngrams(tokens: Sequence[str], n: int) -> list:
  """Returns all runs of n tokens, or of n characters of a string."""
  if isinstance(tokens, str):
    return [tokens[i : i + n] for i in range(len(tokens) - n + 1)]
  return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def top_characters(grams: list, blanks: int = 0) -> int:
  """Returns the characters in all occurrences of the most frequent n-gram.

  `blanks` are added to the characters of each occurrence.
  """
  counts = Counter(grams)
  if not counts:
    return 0
  top = max(counts, key=counts.__getitem__)
  return counts[top] * (sum(map(len, top)) + blanks)


def duplicate_characters(grams: list, n: int) -> int:
  """Returns the number of characters in n-grams that occurred before.

  The search continues after each one, so that no token counts twice. Returns
  -1 if no n-gram, and so no longer one, occurs twice.
  """
  if len(set(grams)) == len(grams):
    return -1
  seen, characters, place = set(), 0, 0
  while place < len(grams):
    gram = grams[place]
    if gram in seen:
      characters += sum(map(len, gram))
      place += n
    else:
      seen.add(gram)
      place += 1
  return characters


def above(value: float, most: float | None, whole: float) -> bool:
  """Whether value / whole exceeds `most`; False for None or an empty whole.

  Divided, not multiplied: 29 of 100 is not above 0.29, but 0.29 * 100 < 29.
  """
  return most is not None and whole > 0 and value / whole > most


def below(value: float, least: float | None, whole: float) -> bool:
  """Whether value / whole is less than `least`; see `above`."""
  return least is not None and whole > 0 and value / whole < least


def passes_over(document: Document, languages: Sequence[str] | None) -> bool:
  """Returns whether rules for these languages skip the document.

  It applies if no stage has identified the language.
  """
  if languages is None:
    return False
  return document.fields.get("lang", languages[0]) not in languages


def check_languages(stage: str, languages: Sequence[str] | None) -> None:
  """Raises ValueError unless `languages` is None or a sequence of names."""
  if languages is not None and (isinstance(languages, str) or not languages):
    raise ValueError(
      f"{stage}: languages={languages!r} is neither None nor a list such as"
      ' ("en",)'
    )
