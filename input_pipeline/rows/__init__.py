"""Kinds of rows that text becomes: a kind's name is the file that defines it.

Without `data.rows` a tokenized text is windows or packed rows for language
modelling. With `data.rows = dict(name="labeled", …)` the function `labeled` of
the file of that name makes the rows; the other keys are its arguments.

A kind is a function (Given, **settings) -> Rows. What its rows hold beside the
source's text, such as a token between two sentences, it names in

  SPECIAL_TOKENS = (special_tokens.CLS, special_tokens.SEP)

and finds with `special_tokens.find`: those that the tokenizer lacks are added
to it. Where they hang on the settings, a function needed_tokens(**settings)
tells them. By convention a row is padded with 0, "segments" [T] is 0 on padding
and counts from 1 elsewhere, and a leaf that is predicted is "targets" with
"mask".
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common import names
from input_pipeline.bad_records import Tally
from input_pipeline.sources import Source
from input_pipeline.tokenizers import Tokenizer


class Rows(NamedTuple):
  """Rows of numbers, read at random.

  length: how many there are.
  read: (int64 [n]) -> {leaf: array [n, ...]}; ValueError for a bad record.
  texts: (int64 [n]) -> {field: [n values]}, what evaluators need beside the
    numbers: references, questions, identifiers; None where there is nothing.
  num_classes: of what is classified, or None.
  class_names: in the order of the labels, where they have names.
  note: a line worth telling, or "".
  """

  length: int
  read: Callable[[np.ndarray], dict[str, np.ndarray]]
  texts: Callable[[np.ndarray], dict[str, Sequence]] | None = None
  num_classes: int | None = None
  class_names: tuple[str, ...] = ()
  note: str = ""


class Given(NamedTuple):
  """What every kind of rows is made from.

  source: of the records.
  tokenizer: with the kind's SPECIAL_TOKENS.
  seq_len: T.
  text_key: the field of the text, where a record has one.
  training: False in an evaluation, where no record may be left out.
  title: what to call the data in an error.
  uri: of the source, and
  split: of it, to name in caches what is derived from it.
  cache_dir: see common.files.cache_folder.
  tally: of bad records.
  """

  source: Source
  tokenizer: Tokenizer
  seq_len: int
  text_key: str
  training: bool
  title: str
  uri: str
  split: str
  cache_dir: str | None
  tally: Tally


def special_tokens(
  settings: Mapping[str, Any] | None,
) -> tuple[tuple[str, ...], ...]:
  """The families of tokens that a kind of rows needs; () without rows.

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
  """The fields that a tokenizer is learned from, where it is.

  A kind with others than text_key tells by `text_keys(text_key, **settings)`.

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
  """({leaf: (shape, dtype)}, classes) of rows, without their data.

  A kind tells by its function `leaves(seq_len, **settings)`.

  Raises:
    ValueError: there is no such kind, or it does not tell.
  """
  module = _module(settings)
  if not hasattr(module, "leaves"):
    raise ValueError(f"rows.name={settings['name']!r} cannot be planned")
  keywords = {k: v for k, v in settings.items() if k != "name"}
  return module.leaves(seq_len, **keywords)


def make(settings: Mapping[str, Any], given: Given) -> Rows:
  """The Rows that a config's `data.rows` asks for.

  Raises:
    ValueError: a name or a key is unknown, or the source does not suit.
  """
  module = _module(settings)
  name = settings["name"]
  function = getattr(module, name)
  keywords = {k: v for k, v in settings.items() if k != "name"}
  known = list(inspect.signature(function).parameters)[1:]
  for key in keywords:
    if key not in known:
      raise ValueError(
        f"rows.{key}: unknown to input_pipeline/rows/{name}.py"
        f"{names.nearest(key, known)}"
      )
  return function(given, **keywords)


def _module(settings: Mapping[str, Any]):
  if not isinstance(settings, Mapping) or "name" not in settings:
    raise ValueError(f"rows={settings!r} is not a dict with a name")
  name = settings["name"]
  kinds = names.discover(__name__)
  if isinstance(name, str) and name in kinds:
    return importlib.import_module(kinds[name])
  raise ValueError(
    f"rows.name: input_pipeline/rows has no {name!r}"
    f"{names.nearest(name, kinds)} (there are: {', '.join(sorted(kinds))})"
  )
