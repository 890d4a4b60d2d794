"""squad:GLOB: the nested JSON of SQuAD: data, paragraphs, qas, answers.

Rajpurkar et al., arXiv:1606.05250 and, with questions without an answer,
arXiv:1806.03822. XQuAD, MLQA, SQuADShifts and CMRC 2018 have the same format.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded
from input_pipeline.reading.columns import strings
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.reading.utf8 import decode
from input_pipeline.sources import Source

_FIELDS = ("id", "title", "context", "question", "answers")


class _Question(NamedTuple):
  """A question, or the reason why it is malformed."""

  name: str
  record: tuple | None
  error: str


def squad(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """squad:GLOB: a record per question.

  {"id", "title", "context", "question": str, "answers": {"text": [str, …],
  "answer_start": [int, …]}}; both lists are empty if there is no answer. The
  start of an answer that has none is -1. An answer without a text is left out
  if the question has others. In a prediction, questions need neither answers
  nor an id. Entire files are held in memory, each of at most
  `max_record_bytes`.
  """
  paths = find_files(pattern, f"squad:{pattern}")
  found = [question for path in paths for question in _of_file(path, policy)]
  if not found:
    raise ValueError(f"squad:{pattern}: holds no question")

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    chosen = [found[int(i)] for i in indices]
    for question in chosen:
      if question.record is None:
        raise ValueError(question.error)
    columns = zip(*(q.record for q in chosen), strict=True)
    made = dict(zip(_FIELDS, map(list, columns), strict=True))
    return {k: strings(made.get(k, [])) for k in _FIELDS}

  source = Source(len(found), read, lambda index: found[index].name)
  return {"all": source._replace(fingerprint=fingerprint(paths))}


def _of_file(path: str, policy: Policy) -> Iterator[_Question]:
  """Parses a file's questions; what is malformed is an error or bad records."""
  return _kept(path, _walk(path, policy), policy)


def _parsed(path: str, content: str) -> Any:
  try:
    return json.loads(content)
  except RecursionError:
    raise ValueError(f"{path}: nested too deeply") from None
  except ValueError as error:
    raise ValueError(f"{path}: not JSON: {error}") from None


def _walk(path: str, policy: Policy) -> Iterator[_Question]:
  root = _parsed(path, decode(path, bounded.read_file(path, policy)))
  for a, article in enumerate(_field(path, root, "data", list)):
    at = f"{path}: data[{a}]"
    yield from _kept(at, _of_article(at, article, policy), policy)


def _of_article(at: str, article: Any, policy: Policy) -> Iterator[_Question]:
  title = article.get("title", "") if isinstance(article, dict) else ""
  for p, paragraph in enumerate(_field(at, article, "paragraphs", list)):
    inside = f"{at}.paragraphs[{p}]"
    found = _of_paragraph(inside, paragraph, str(title), policy)
    yield from _kept(inside, found, policy)


def _kept(
  name: str, found: Iterator[_Question], policy: Policy
) -> Iterator[_Question]:
  """Yields questions; a part that is malformed is an error, or a bad record."""
  try:
    yield from found
  except ValueError as error:
    if not policy.skip:
      raise
    yield _Question(name, None, str(error))


def _of_paragraph(
  inside: str, paragraph: Any, title: str, policy: Policy
) -> Iterator[_Question]:
  context = _field(inside, paragraph, "context", str)
  for q, question in enumerate(_field(inside, paragraph, "qas", list)):
    name = f"{inside}.qas[{q}]"
    found = _of_one(name, question, title, context, policy.labels)
    yield from _kept(name, found, policy)


def _of_one(
  name: str, question: Any, title: str, context: str, labels: bool
) -> Iterator[_Question]:
  answers = []
  if isinstance(question, dict) and not labels:
    question = {"id": name, **question}
  elif isinstance(question, dict) and not question.get("is_impossible"):
    answers = _field(name, question, "answers", list)
  texts = [each for each in answers if _has(each, "text", str)]
  if answers and not texts:
    _field(name, answers[0], "text", str)  # Raises.
  found = {
    "text": [each["text"] for each in texts],
    "answer_start": [
      each["answer_start"] if _has(each, "answer_start", int) else -1
      for each in texts
    ],
  }
  asked = _field(name, question, "question", str)
  identity = _field(name, question, "id", str)
  yield _Question(name, (identity, title, context, asked, found), "")


def _field(name: str, value: Any, key: str, kind: type) -> Any:
  """Returns value[key], which must have the given type."""
  if not _has(value, key, kind):
    what = {list: "list", str: "text", int: "number"}[kind]
    raise ValueError(f"{name}: no {what} {key!r}")
  return value[key]


def _has(value: Any, key: str, kind: type) -> bool:
  return isinstance(value, dict) and isinstance(value.get(key), kind)
