"""Questions about texts that contain their answers, as in SQuAD."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.reading.columns import strings
from input_pipeline.rows import Given, Rows
from input_pipeline.rows.parts import match_features
from input_pipeline.rows.parts.record_windows import cut, records, spans
from input_pipeline.tokenizers.parts import offsets, special_tokens

SPECIAL_TOKENS = special_tokens.BERT
# Longer texts, such as books, would need too much memory at a time.
_MOST_CHARACTERS = 2**20
AXES = dict.fromkeys(("tokens", "segments", "types"), ("time",))
AXES["features"] = ("time", "match")


def questions(
  given: Given,
  *,
  question_key: str = "question",
  answers_key: str = "answers",
  id_key: str = "id",
  stride: int | None = None,
  max_question: int = 64,
  features: bool = False,
) -> Rows:
  """Rows of "[CLS] question [SEP] window of the text [SEP]".

  A row is {"tokens", "segments", "types": int32 [T], "start", "end": int32 []}:
  types is 1 after the first [SEP], segments is 1 except on padding; the answer
  is tokens[start … end], and both are 0, at [CLS], if the window does not
  contain it (BERT, arXiv:1810.04805, section 4.3). With `features` there is
  also "features", float32 [T, F], see match_features.py.

  The text is the field `text_key`. The field of answers is {"text": [str, …],
  "answer_start": [int, …]}, in characters; empty lists if there is none. Of
  several answers the most frequent one is used, and the first of these on a
  tie. Answers that are not at their places in the text are not used, and the
  note counts them. A question all of whose answers are so is a bad record in
  training; in an evaluation its rows have "mask" 0, which leaves them out of
  the loss, and it is scored by the texts of its answers.

  texts gives "id", "question", "context" and "answers", "record", the number of
  the question, and "starts" and "ends", int32 [T]: the characters of the text
  that a token spans, -1 for tokens outside the text.

  Args:
    given: of the data.
    question_key: the field of the question.
    answers_key: of the answers.
    id_key: the field of the question's name in a file of predictions.
    stride: tokens from the start of a window to that of the next; None for half
      a window.
    max_question: the number of tokens to which a question is truncated.
    features: whether a row has the features of matches with the question.

  Raises:
    ValueError: a field is missing, or no answer is at its stated place.
  """
  keys = (id_key, question_key, given.text_key, answers_key)
  encode = offsets.encoder(given.tokenizer)
  cls, sep = (
    special_tokens.find(given.tokenizer, family)
    for family in (special_tokens.CLS, special_tokens.SEP)
  )
  least = max_question + 4
  if given.seq_len < least or max_question < 1:
    raise ValueError(
      f"seq_len {given.seq_len} leaves no room for a text; with"
      f" max_question={max_question} it must be at least {least}"
    )

  unused = []  # The number of answers of each question that are not used.

  def windows(name: str, record: dict[str, Any]):
    found = checked(name, *(record[k] for k in keys))
    size = min(len(encode(found.question).ids), max_question)
    room = given.seq_len - 3 - size
    text = encode(found.context)
    if not len(text.ids):
      raise ValueError(f"{name}: its text holds no token")
    first, last = _answer(text, found.answers)
    answered = first >= 0 or not (found.answers or found.wrong)
    if not answered and (given.training or not found.texts):
      uncovered = [f"no token covers {each[1]!r:.60}" for each in found.answers]
      raise ValueError(f"{name}: {[*found.wrong, *uncovered][0]}")
    made = []
    for start, stop in spans(len(text.ids), room, stride or (room + 1) // 2):
      inside = start <= first and last < stop
      shift = 2 + size - start
      place = (first + shift, last + shift) if inside else (0, 0)
      made.append((start, stop, *place, int(answered)))
    unused.extend([len(found.wrong)] * bool(found.wrong))
    return made

  def matches(question: str, context: str) -> tuple[np.ndarray, np.ndarray]:
    asked, text = encode(question), encode(context)
    found = match_features.match(asked.words, text.words)
    return tuple(
      _of_tokens(each, of).astype(np.float16)
      for each, of in zip(found, (asked, text), strict=True)
    )

  held_matches = offsets.remembered(matches, 2**13)  # They are slow to compute.
  if stride is not None and stride < 1:
    raise ValueError(f"rows.stride {stride} is below 1")
  index = cut(given, keys, windows)

  def pairs(rows: np.ndarray):
    """Yields (question and text, their Encoded, the text's token range)."""
    found = records(given, index[rows, 0], keys)
    both = zip(found[question_key], found[given.text_key], strict=True)
    for i, each in enumerate(both):
      yield each, *map(encode, each), *(int(n) for n in index[rows[i], 1:3])

  def read(rows: np.ndarray) -> dict[str, np.ndarray]:
    out = {
      k: np.zeros((len(rows), given.seq_len), np.int32)
      for k in ("tokens", "segments", "types")
    }
    if features:
      shape = (len(rows), given.seq_len, match_features.COUNT)
      out["features"] = np.zeros(shape, np.float32)
    for i, (both, asked, text, first, last) in enumerate(pairs(rows)):
      ids = asked.ids[:max_question]
      row = np.concatenate([[cls], ids, [sep], text.ids[first:last], [sep]])
      out["tokens"][i, : len(row)] = row
      out["segments"][i, : len(row)] = 1
      out["types"][i, 2 + len(ids) : len(row)] = 1
      if features:
        of_asked, of_text = held_matches(*both)
        place = out["features"][i]
        place[1 : 1 + len(ids)] = of_asked[: len(ids)]
        place[2 + len(ids) : len(row) - 1] = of_text[first:last]
    out["start"] = index[rows, 3].astype(np.int32)
    out["end"] = index[rows, 4].astype(np.int32)
    if not given.training:
      out["mask"] = index[rows, 5].astype(np.float32)
    return out

  def texts(rows: np.ndarray) -> dict[str, Sequence]:
    found = records(given, index[rows, 0], keys)
    places = np.full((2, len(rows), given.seq_len), -1, np.int32)
    for i, (_, asked, text, first, last) in enumerate(pairs(rows)):
      begin = 2 + min(len(asked.ids), max_question)
      places[0, i, begin : begin + last - first] = text.starts[first:last]
      places[1, i, begin : begin + last - first] = text.ends[first:last]
    names = ("id", "question", "context", "answers")
    answers = [_with_texts(each) for each in found[answers_key]]
    return {
      **{name: found[k] for name, k in zip(names, keys, strict=True)},
      "answers": strings(answers),
      "record": index[rows, 0],
      "starts": places[0],
      "ends": places[1],
    }

  note = ""
  if unused:
    note = (
      f"{given.title}: {sum(unused):,} answers of {len(unused):,} questions are"
      " not at their places in the text and are not learned"
    )
  return Rows(
    len(index),
    read,
    texts,
    note=note,
    planned=True,
    record=lambda row: given.source.name(int(index[row, 0])),
  )


def placeholders(
  given: Given,
  records,
  indices: np.ndarray,
  *,
  answers_key: str = "answers",
  id_key: str = "id",
  **other,
) -> dict[str, np.ndarray]:
  """Returns answers for records without them, see rows/__init__.py."""
  del other
  none = [{"text": [], "answer_start": []} for _ in indices]
  names = [given.source.name(int(i)) for i in indices]
  return {
    id_key: records.get(id_key, strings(names)),
    answers_key: strings(none),
  }


def leaves(seq_len: int, features: bool = False, **other):
  """Returns ({leaf: (shape, dtype)}, None) of such rows."""
  del other
  found = dict.fromkeys(("tokens", "segments", "types"), ((seq_len,), np.int32))
  found |= dict.fromkeys(("start", "end"), ((), np.int32))
  if features:
    found["features"] = ((seq_len, match_features.COUNT), np.float32)
  return found, None


class Checked(NamedTuple):
  """A question.

  answers: (start, text) of those that are at their places.
  wrong: what is wrong with each of the others.
  texts: of all answers that are text, wherever they are.
  """

  question: str
  context: str
  answers: list[tuple[int, str]]
  wrong: list[str]
  texts: list[str]


def checked(name: str, identity, question, context, answers) -> Checked:
  """Returns the question of a record, with its answers sorted out.

  Raises:
    ValueError: it is not such a record; one line that names it.
  """
  del identity  # It may be of any type.
  for what, value in (("question", question), ("text", context)):
    if not isinstance(value, str):
      raise ValueError(f"{name}: its {what} is not a string")
    if len(value) > _MOST_CHARACTERS:
      raise ValueError(
        f"{name}: its {what} has {len(value):,} characters, more than"
        f" {_MOST_CHARACTERS:,}"
      )
  texts = answers.get("text") if isinstance(answers, dict) else None
  starts = answers.get("answer_start") if isinstance(answers, dict) else None
  alike = isinstance(texts, list) and isinstance(starts, list)
  if not alike or len(texts) != len(starts):
    raise ValueError(
      f'{name}: its answers are not {{"text": […], "answer_start": […]}} with'
      " lists of equal length"
    )
  found, wrong = [], []
  for start, text in zip(starts, texts, strict=True):
    reason = _misplaced(context, start, text)
    if reason:
      wrong.append(reason)
    else:
      found.append((start, text))
  return Checked(question, context, found, wrong, _with_texts(answers)["text"])


def _misplaced(context: str, start: Any, text: Any) -> str:
  """Returns what is wrong with an answer, or ""."""
  whole = isinstance(start, int) and isinstance(text, str)
  if not whole or start < 0 or not text.strip():
    return f"{text!r:.60} at {start!r:.20} is not an answer"
  if context[start : start + len(text)] != text:
    return f"the answer {text!r:.60} is not at character {start} of its text"
  return ""


def _with_texts(answers: dict[str, list]) -> dict[str, list]:
  """Returns the answers that are texts, by which a question is scored."""
  pairs = zip(answers["text"], answers["answer_start"], strict=True)
  kept = [(t, s) for t, s in pairs if isinstance(t, str) and t.strip()]
  return {"text": [t for t, _ in kept], "answer_start": [s for _, s in kept]}


def _answer(
  text: offsets.Encoded, answers: list[tuple[int, str]]
) -> tuple[int, int]:
  """Returns the answer's first and last token; (-1, -1) without an answer."""
  for (start, answer), _ in Counter(answers).most_common():
    end = start + len(answer)
    touched = np.flatnonzero((text.starts < end) & (text.ends > start))
    if len(touched):
      return int(touched[0]), int(touched[-1])
  return -1, -1


def _of_tokens(of_words: np.ndarray, text: offsets.Encoded) -> np.ndarray:
  """Returns the words' features and whether a word begins, for each token."""
  first = np.diff(text.word, prepend=-1) > 0
  return np.column_stack([of_words[text.word], first])
