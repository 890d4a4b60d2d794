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
  "answer_start": [int, …]}}; both lists are empty if there is no answer. Entire
  files are held in memory, each of at most `max_record_bytes`.
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
  """Parses a file's questions; malformed data is an error or one bad record."""
  try:
    content = decode(path, bounded.read_file(path, policy))
    yield from _walk(path, _parsed(path, content), policy)
  except ValueError as error:
    if not policy.skip:
      raise
    yield _Question(path, None, str(error))


def _parsed(path: str, content: str) -> Any:
  try:
    return json.loads(content)
  except RecursionError:
    raise ValueError(f"{path}: nested too deeply") from None
  except ValueError as error:
    raise ValueError(f"{path}: not JSON: {error}") from None


def _walk(path: str, root: Any, policy: Policy) -> Iterator[_Question]:
  articles = _field(path, root, "data", list)
  for a, article in enumerate(articles):
    at = f"{path}: data[{a}]"
    title = article.get("title", "") if isinstance(article, dict) else ""
    for p, paragraph in enumerate(_field(at, article, "paragraphs", list)):
      inside = f"{at}.paragraphs[{p}]"
      context = _field(inside, paragraph, "context", str)
      for q, question in enumerate(_field(inside, paragraph, "qas", list)):
        name = f"{inside}.qas[{q}]"
        try:
          record = _record(name, question, str(title), context)
          yield _Question(name, record, "")
        except ValueError as error:
          if not policy.skip:
            raise
          yield _Question(name, None, str(error))


def _record(name: str, question: Any, title: str, context: str) -> tuple:
  answers = []
  if isinstance(question, dict) and not question.get("is_impossible"):
    answers = _field(name, question, "answers", list)
  found = {
    "text": [_field(name, each, "text", str) for each in answers],
    "answer_start": [
      _field(name, each, "answer_start", int) for each in answers
    ],
  }
  asked = _field(name, question, "question", str)
  return _field(name, question, "id", str), title, context, asked, found


def _field(name: str, value: Any, key: str, kind: type) -> Any:
  """Returns value[key], which must have the given type."""
  if not isinstance(value, dict) or not isinstance(value.get(key), kind):
    what = {list: "list", str: "text", int: "number"}[kind]
    raise ValueError(f"{name}: no {what} {key!r}")
  return value[key]
