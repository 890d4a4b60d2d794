"""Kinds of rows made from text: the name of a kind is its file's name.

Without `data.rows` a tokenized text becomes windows or packed rows for language
modelling. With `data.rows = dict(name="labeled", …)` the function `labeled` of
the file of that name makes the rows; the other keys are its arguments.

A kind is a function (Given, **settings) -> Rows. The tokens that its rows
contain besides those of the source's text, such as a separator of two
sentences, are declared in

  SPECIAL_TOKENS = (special_tokens.CLS, special_tokens.SEP)

and found with `special_tokens.find`: those that the tokenizer lacks are added
to it. If they depend on the settings, a function needed_tokens(**settings)
returns them. By convention a row is padded with 0, "segments" [T] is 0 on
padding and counts from 1 elsewhere, and a predicted leaf is "targets" with
"mask".

A kind names the axes of its leaves in AXES and what counts for the speed of a
run in UNITS; see common/leaf.py.

A kind that takes no tokenizer sets NEEDS_TOKENIZER = False, and one that reads
text without any also IGNORES_TOKENIZER = True. One that learns from
the training data has a function fit(Learning, **settings), called once for all
components of the data; its rows find the result in Given.fitted.

A kind whose records have labels has a function

  placeholders(Given, records, indices, **settings) -> {field: values}

of some records. In a prediction, whose records need no labels, its values take
the place of those fields.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common import names
from common.leaf import Axes
from input_pipeline.bad_records import Policy, Tally
from input_pipeline.sources import Source
from input_pipeline.tokenizers import Tokenizer


class Rows(NamedTuple):
  """Rows of numbers, with random access.

  length: the number of rows.
  read: (int64 [n]) -> {leaf: array [n, ...]}; ValueError for a bad record.
  texts: (int64 [n]) -> {field: [n values]}, which evaluators need besides the
    arrays: references, questions, identifiers; None if there are none.
  num_classes: the number of classes, or None.
  class_names: in the order of the labels, or ().
  note: a line to print, or "".
  planned: whether every record was read when the rows were made, and the bad
    ones left out and counted in Given.tally. Otherwise a row is a record: under
    "skip" the row of a bad one becomes padding, and is counted when it is read
    (see input_pipeline/bad_records.py).
  record: (row) -> the name of its record; None if a row is a record.
  unscaled: (predicted "y") -> the same in the unit of the data; or None.
  sizes: {argument of a model or task: size} that the leaves do not show, such
    as the number of values that an id may have.
  """

  length: int
  read: Callable[[np.ndarray], dict[str, np.ndarray]]
  texts: Callable[[np.ndarray], dict[str, Sequence]] | None = None
  num_classes: int | None = None
  class_names: tuple[str, ...] = ()
  note: str = ""
  planned: bool = False
  record: Callable[[int], str] | None = None
  unscaled: Callable[[np.ndarray], np.ndarray] | None = None
  sizes: Mapping[str, int] = {}


class Given(NamedTuple):
  """The inputs of every kind of rows.

  source: of the records.
  tokenizer: with the kind's SPECIAL_TOKENS.
  seq_len: T.
  text_key: the field of the text, if a record has one.
  training: False in an evaluation, which must not leave any record out.
  title: the name of the data in error messages.
  uri: of the source, and
  split: of it, which identify cached files derived from it.
  cache_dir: see common.files.cache_folder.
  tally: of bad records.
  fitted: what the kind's `fit` returned; None for a kind without one.
  """

  source: Source
  tokenizer: Tokenizer | None
  seq_len: int | None
  text_key: str
  training: bool
  title: str
  uri: str
  split: str
  cache_dir: str | None
  tally: Tally
  fitted: Any = None


class Learning(NamedTuple):
  """What a kind of rows learns its statistics from.

  sources: of all components of the data.
  titles: what to call each in an error.
  training: False in an evaluation, whose data must not be learned from.
  workdir: where what is learned is kept, or None.
  policy: of bad records.
  """

  sources: Sequence[Source]
  titles: Sequence[str]
  training: bool
  workdir: str | None
  policy: Policy


def special_tokens(
  settings: Mapping[str, Any] | None,
) -> tuple[tuple[str, ...], ...]:
  """Returns the families of tokens that a kind of rows needs; () without rows.

  Raises:
    ValueError: there is no such kind.
  """
  if not settings:
    return ()
  module = _module(settings)
  if hasattr(module, "needed_tokens"):
    return module.needed_tokens(
      **{k: v for k, v in settings.items() if k != "name"}
    )
  return getattr(module, "SPECIAL_TOKENS", ())


def text_keys(
  settings: Mapping[str, Any] | None, text_key: str
) -> tuple[str, ...]:
  """Returns the fields from which a tokenizer is learned.

  A kind with fields other than text_key defines `text_keys(text_key,
  **settings)`.

  Raises:
    ValueError: there is no such kind.
  """
  tells = getattr(_module(settings), "text_keys", None) if settings else None
  if tells is None:
    return (text_key,)
  return tells(text_key, **{k: v for k, v in settings.items() if k != "name"})


def planned(
  settings: Mapping[str, Any], seq_len: int
) -> tuple[dict[str, tuple[tuple[int, ...], Any]], int | None]:
  """Returns ({leaf: (shape, dtype)}, classes) of rows, without their data.

  They come from the kind's function `leaves(seq_len, **settings)`.

  Raises:
    ValueError: there is no such kind, or it has no such function.
  """
  module = _module(settings)
  if not hasattr(module, "leaves"):
    raise ValueError(f"rows.name={settings['name']!r} cannot be planned")
  keywords = {k: v for k, v in settings.items() if k != "name"}
  return module.leaves(seq_len, **keywords)


def described(
  settings: Mapping[str, Any],
) -> tuple[Axes, Mapping[str, str]]:
  """Returns the AXES and UNITS of a kind of rows, {} if it defines none."""
  module = _module(settings)
  return getattr(module, "AXES", {}), getattr(module, "UNITS", {})


def needs_tokenizer(settings: Mapping[str, Any]) -> bool:
  """Whether a kind of rows reads text.

  Raises:
    ValueError: there is no such kind.
  """
  return getattr(_module(settings), "NEEDS_TOKENIZER", True)


def ignores_tokenizer(settings: Mapping[str, Any] | None) -> bool:
  """Whether a kind of rows reads text, but not through a tokenizer.

  Raises:
    ValueError: there is no such kind.
  """
  return bool(settings) and getattr(
    _module(settings), "IGNORES_TOKENIZER", False
  )


def fit(settings: Mapping[str, Any], learning: Learning) -> Any:
  """What a kind of rows learns from the training data; None for most kinds.

  Raises:
    ValueError: a name or a key is unknown, or the data do not suit.
  """
  function = getattr(_module(settings), "fit", None)
  keywords = _keywords(settings)
  return None if function is None else function(learning, **keywords)


def make(settings: Mapping[str, Any], given: Given) -> Rows:
  """Returns the Rows that a config's `data.rows` specifies.

  Raises:
    ValueError: a name or a key is unknown, or the source does not fit.
  """
  function = getattr(_module(settings), settings["name"])
  keywords = _keywords(settings)
  if not given.tally.policy.labels:
    given = given._replace(source=_unlabeled(settings, given, keywords))
  return function(given, **keywords)


def _unlabeled(settings: Mapping[str, Any], given: Given, keywords) -> Source:
  """The source, with placeholders for the labels that its records may lack."""
  placeholders = getattr(_module(settings), "placeholders", None)
  if placeholders is None:
    return given.source

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    records = given.source.read(indices)
    made = placeholders(given, records, indices, **keywords)
    return {**records, **made}

  return given.source._replace(read=read)


def _keywords(settings: Mapping[str, Any]) -> dict[str, Any]:
  """The settings of a kind; ValueError for one that it does not take."""
  name = settings["name"]
  function = getattr(_module(settings), name)
  keywords = {k: v for k, v in settings.items() if k != "name"}
  known = list(inspect.signature(function).parameters)[1:]
  for key in keywords:
    if key not in known:
      raise ValueError(
        f"rows.{key}: unknown to input_pipeline/rows/{name}.py"
        f"{names.nearest(key, known)}"
      )
  return keywords


def _module(settings: Mapping[str, Any]):
  if not isinstance(settings, Mapping) or "name" not in settings:
    raise ValueError(f"rows={settings!r} is not a dict with a name")
  name = settings["name"]
  kinds = names.discover(__name__)
  if isinstance(name, str) and name in kinds:
    return importlib.import_module(kinds[name])
  raise ValueError(
    f"rows.name: input_pipeline/rows has no {name!r}"
    f"{names.nearest(name, kinds)} (valid: {', '.join(sorted(kinds))})"
  )
