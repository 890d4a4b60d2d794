"""A family of models: which sizes of config.json are which of ours, and how.

All that config.json says is either a size of our model, or has the one value
that our model computes by, or does not change what is computed. Anything else
is refused.
"""

import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from common.errors import UserError
from train.conversions.parts.layout import Row, Shapes

# Of our models' arguments, those that change how and not what is computed.
_COMPUTATION = (
  "dropout",
  "dtype",
  "matmul",
  "param_dtype",
  "remat",
  "scan",
  "stage_microbatches",
)
# Keys that any config.json may have, and that no forward pass reads.
_ANY = {
  *("architectures", "model_type", "transformers_version", "_name_or_path"),
  *("torch_dtype", "dtype", "initializer_range", "initializer_factor"),
  *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
  *("sep_token_id", "cls_token_id", "mask_token_id", "tokenizer_class"),
  *("_num_labels", "bad_words_ids", "prefix", "forced_eos_token_id"),
  *("use_cache", "return_dict", "output_attentions", "output_hidden_states"),
  *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task"),
  *("task_specific_params", "gradient_checkpointing", "output_past"),
  *("chunk_size_feed_forward", "torchscript", "use_bfloat16"),
  *("max_length", "min_length", "do_sample", "early_stopping", "num_beams"),
  *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty"),
  *("length_penalty", "no_repeat_ngram_size", "num_return_sequences"),
  *("num_beam_groups", "diversity_penalty", "encoder_no_repeat_ngram_size"),
}
_LARGEST = 2**31  # of a size


class Size(NamedTuple):
  """What both configs say.

  theirs: key of config.json, or several that one of ours stands for.
  ours: argument of our model.
  default: of theirs, where config.json is silent; of several a tuple. None
    leaves ours as it is.
  kind: of the value: int, float, bool or dict.
  choices: {theirs: ours}, one to one, where the values differ. Of several, or
    of a list, theirs is a tuple.
  """

  theirs: str | tuple[str, ...]
  ours: str
  default: Any
  kind: type = int
  choices: Mapping[Any, Any] | None = None


class Family(NamedTuple):
  """What a file of train/conversions states.

  model: the name of our model.
  task: (our section, config.json) -> config.task of its runs.
  sizes: what both configs say.
  ours: the arguments of our model that make it this family's.
  fixed: {key of theirs: the value that ours computes by, or (our section) ->
    that value}; config.json may say nothing else.
  ignored: keys of theirs that change nothing in the forward pass.
  table: (our section) -> the rows of every tensor.
  architectures: (our section) -> the class that reads what is written.
  prefix: of the names in the table, that a file may lack.
  tops: how names begin that never have the prefix.
  spelling: (name of a tensor) -> its name today.
  tidy: (config.json, names of its tensors) -> the same with one spelling for
    each thing; keys that begin with "_" are for `sizes` alone.
  filled: (our section, shapes of our arrays) -> it, None replaced by what it
    stands for.
  written: (our section) -> more keys for config.json.
  copies: (our section) -> {name that may be there: the one it must equal}.
  dropped: regex of names that no forward pass reads.
  optional: regex of names whose tensors may be missing; ours are 0 then.
  counters: (our section) -> names of int64 scalars that count training steps;
    ours keeps none, and writes 0.
  """

  model: str
  task: Callable[[Mapping, Mapping], dict]
  sizes: tuple[Size, ...]
  ours: Mapping[str, Any]
  fixed: Mapping[str, Any]
  ignored: frozenset[str]
  table: Callable[[Mapping], list[Row]]
  architecture: Callable[[Mapping], str]
  prefix: str = ""
  tops: tuple[str, ...] = ("lm_head.", "classifier.", "cls.", "qa_outputs.")
  spelling: Callable[[str], str] = lambda name: name
  tidy: Callable[[dict, Collection[str]], dict] = lambda config, names: config
  filled: Callable[[dict, Shapes], dict] = lambda section, shapes: section
  written: Callable[[Mapping], dict] = lambda section: {}
  copies: Callable[[Mapping], dict] = lambda section: {}
  dropped: str = r"(?!)"
  optional: str = r"(?!)"
  counters: Callable[[Mapping], list[str]] = lambda section: []


def section_of(
  family: Family, config: dict[str, Any], names: Collection[str]
) -> dict[str, Any]:
  """Our config.model of a config.json beside tensors of such names.

  Raises:
    UserError: it says what our model cannot do; names the key.
  """
  config = family.tidy(dict(config), names)
  section = {"name": family.model, **family.ours}
  for size in family.sizes:
    value = _ours(size, config)
    if value is not None:
      section[size.ours] = value
  for key, wanted in family.fixed.items():
    value = wanted(section) if callable(wanted) else wanted
    if key in config and config[key] != value:
      raise UserError(
        f"{key} = {short(config[key])}: models/{family.model}.py knows"
        f" {short(value)} alone"
      )
  known = {*_ANY, *family.ignored, *family.fixed}
  for size in family.sizes:
    known |= set(_keys(size))
  for key, value in config.items():
    if key not in known and value not in (None, False, {}, []):
      raise UserError(
        f"{short(key)[1:-1]} = {short(value)}: no such key is known of"
        f" {family.model}, so it cannot be told what it changes"
      )
  return section


def _keys(size: Size) -> tuple[str, ...]:
  return (size.theirs,) if isinstance(size.theirs, str) else size.theirs


def _ours(size: Size, config: Mapping) -> Any:
  keys = _keys(size)
  defaults = size.default if len(keys) > 1 else (size.default,)
  given = [
    default if config.get(key) is None else config[key]
    for key, default in zip(keys, defaults, strict=True)
  ]
  said = ", ".join(
    f"{k} = {short(v)}" for k, v in zip(keys, given, strict=True)
  )
  if size.choices is not None:
    chosen = tuple(map(_frozen, given)) if len(given) > 1 else _frozen(given[0])
    for theirs, ours in size.choices.items():
      if theirs == chosen:
        return ours
    listed = "; ".join(map(short, size.choices))
    raise UserError(f"{said}: is none of: {listed}")
  (value,) = given
  if value is None:
    return None
  right = type(value) is size.kind
  if size.kind is int:
    right = right and 0 < value < _LARGEST
  if size.kind is float:
    right = type(value) in (int, float) and 0 < value < math.inf
    value = float(value) if right else value
  if not right:
    raise UserError(f"{said}: makes no sense")
  return value


def _frozen(value: Any) -> Any:
  """A list as a tuple, to be found among choices."""
  return tuple(map(_frozen, value)) if isinstance(value, list) else value


def config_of(
  family: Family, function: Callable, section: Mapping, shapes: Shapes
) -> tuple[dict[str, Any], dict[str, Any]]:
  """(config.json of one of our models, its section with nothing left out).

  Args:
    family: to write it as.
    function: that makes the model, for its defaults.
    section: config.model, with what the data has given.
    shapes: of its arrays.

  Raises:
    UserError: the family has no such model; names the argument.
  """
  defaults = defaults_of(function)
  full = complete(family, function, section, shapes)
  for key, value in family.ours.items():
    if full[key] != value:
      raise UserError(f"config.model.{key} is {full[key]!r}, not {value!r}")
  sizes = {size.ours for size in family.sizes}
  for key, value in full.items():
    free = key in sizes or key in family.ours or key in _COMPUTATION
    if not free and value != defaults[key]:
      raise UserError(f"config.model.{key} is {value!r}, not {defaults[key]!r}")
  config: dict[str, Any] = {"architectures": [family.architecture(full)]}
  for size in family.sizes:
    value = full[size.ours]
    if size.choices is not None:
      found = [t for t, ours in size.choices.items() if ours == value]
      if not found:
        raise UserError(
          f"config.model.{size.ours} is {value!r}, none of:"
          f" {', '.join(map(str, size.choices.values()))}"
        )
      value = found[0]
    several = not isinstance(size.theirs, str)
    config |= zip(_keys(size), value if several else (value,), strict=True)
  for key, value in family.fixed.items():
    config[key] = value(full) if callable(value) else value
  config |= family.written(full)
  return {
    k: _plain(v)
    for k, v in config.items()
    if v is not None and not k.startswith("_")
  }, full


def defaults_of(function: Callable) -> dict[str, Any]:
  """{argument: its default}."""
  parameters = inspect.signature(function).parameters
  return {name: p.default for name, p in parameters.items()}


def complete(
  family: Family, function: Callable, section: Mapping, shapes: Shapes
) -> dict[str, Any]:
  """Every argument of a model, with what a None of its config stands for."""
  given = {k: v for k, v in section.items() if k != "name"}
  return family.filled({**defaults_of(function), **given}, shapes)


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  """Whether two complete sections compute the same."""
  return all(one[key] == other[key] for key in one if key not in _COMPUTATION)


def _plain(value: Any) -> Any:
  return json.loads(json.dumps(value))


def short(value: Any) -> str:
  """The value in at most 80 characters."""
  try:
    text = repr(value)
  except RecursionError:
    return "…"
  return text if len(text) <= 80 else f"{text[:79]}…"


def labels(section: Mapping) -> dict[str, Any]:
  """id2label and label2id of as many classes as our model has."""
  names = [f"LABEL_{i}" for i in range(section["num_classes"])]
  return {
    "id2label": {str(i): name for i, name in enumerate(names)},
    "label2id": {name: i for i, name in enumerate(names)},
  }


def counted_labels(
  config: dict[str, Any], names: Collection[str] = ()
) -> dict[str, Any]:
  """The config.json with num_labels, which it may tell by id2label alone."""
  del names
  told = config.get("id2label")
  count = len(told) if isinstance(told, dict) else config.get("num_labels", 2)
  return {**config, "num_labels": count}
