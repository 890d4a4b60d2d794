"""A family of models: the mapping between config.json and config.model.

Every key of config.json must be a size of our model, or have the one value that
our model implements, or not affect the outputs. A key that no family defines is
judged by unknown_keys.py.
"""

import inspect
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from common.errors import UserError
from train.conversions.parts import unknown_keys
from train.conversions.parts.layout import Row, Shapes

# Arguments of our models that change how the outputs are computed, but not what
# they are.
COMPUTATION = (
  "drop_path",
  "dropout",
  "dtype",
  "matmul",
  "param_dtype",
  "remat",
  "scan",
  "stage_microbatches",
  "zero_init",
)
# Keys that any config.json may have and that do not affect the forward pass.
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
# Of a language model whose file lacks its output layer.
NO_HEAD = (
  "a model without lm_head.weight, that is, without a head: its logits are"
  " computed with the token embeddings"
)
_LARGEST = 2**31  # the exclusive limit of an integer size


class Size(NamedTuple):
  """A setting that exists in both configs.

  theirs: the key of config.json, or several keys that together correspond to
    one argument of ours.
  ours: the argument of our model.
  default: the value if config.json lacks the key; a tuple for several keys.
    None keeps the default of our model.
  kind: the type of the value: int, float, bool, str or dict.
  choices: {theirs: ours}, one to one, if the values differ. For several keys,
    or for a list, theirs is a tuple.
  """

  theirs: str | tuple[str, ...]
  ours: str
  default: Any
  kind: type = int
  choices: Mapping[Any, Any] | None = None


class Family(NamedTuple):
  """The definition of a family, one per file of train/conversions.

  "Our section" is config.model.

  model: the name of our model.
  task: (our section, config.json) -> config.task of the family's runs.
  sizes: the settings that exist in both configs.
  ours: arguments of our model that are the same for the entire family.
  fixed: {key of config.json: the only supported value, or (our section) ->
    that value}.
  ignored: keys of config.json that do not affect the forward pass.
  table: (our section) -> the rows of all tensors.
  architecture: (our section) -> the class in transformers that reads what we
    write.
  stem: the beginning of the names of the family's classes in transformers.
  prefix: a prefix of the names in the table that a file may omit.
  tops: the beginnings of names that never have the prefix.
  spelling: (name of a tensor) -> its current name.
  tidy: (config.json, names of its tensors) -> config.json in a normalized form;
    keys that begin with "_" are only for `sizes`.
  filled: (our section, shapes of our arrays) -> the section, with every None
    replaced by the value that it stands for.
  written: (our section) -> additional keys for config.json.
  copies: (our section) -> {name of an optional tensor: the tensor that it must
    equal}.
  dropped: a regex of names that do not affect the forward pass.
  optional: a regex of names that may be missing, all of them or none; our
    arrays are then 0.
  headless: (config.json, names of its tensors) -> a line about what a file
    without a head, or without a decoder, is read as; "" for a whole model.
  aliases: {name of a tensor: its name in files that lack the former}.
  counters: (our section) -> names of int64 scalars that count training steps;
    they are not read, and are written as 0.
  """

  model: str
  task: Callable[[Mapping, Mapping], dict]
  sizes: tuple[Size, ...]
  ours: Mapping[str, Any]
  fixed: Mapping[str, Any]
  ignored: frozenset[str]
  table: Callable[[Mapping], list[Row]]
  architecture: Callable[[Mapping], str]
  stem: str
  prefix: str = ""
  tops: tuple[str, ...] = ("lm_head.", "classifier.", "cls.", "qa_outputs.")
  spelling: Callable[[str], str] = lambda name: name
  tidy: Callable[[dict, Collection[str]], dict] = lambda config, names: config
  filled: Callable[[dict, Shapes], dict] = lambda section, shapes: section
  written: Callable[[Mapping], dict] = lambda section: {}
  copies: Callable[[Mapping], dict] = lambda section: {}
  dropped: str = r"(?!)"
  optional: str = r"(?!)"
  headless: Callable[[Mapping, Collection[str]], str] = lambda c, names: ""
  aliases: Mapping[str, str] = {}
  counters: Callable[[Mapping], list[str]] = lambda section: []


def section_of(
  family: Family, config: dict[str, Any], names: Collection[str]
) -> dict[str, Any]:
  """Returns config.model for a config.json and the names of its tensors.

  Raises:
    UserError: our model does not support a value; the message names the key.
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
        f"{key} = {short(config[key])}: the model {family.model} supports"
        f" only {short(value)}"
      )
  for key in _strange(family, config):
    if unknown_keys.refused(key, config):
      raise UserError(
        f"{short(key)[1:-1]} = {short(config[key])}: unknown key for the model"
        f" {family.model}, which may change its outputs"
      )
  return section


def _strange(family: Family, config: Mapping[str, Any]) -> list[str]:
  """Returns the keys of config.json that the family does not define."""
  known = {*_ANY, *family.ignored, *family.fixed}
  for size in family.sizes:
    known |= set(_keys(size))
  known |= unknown_keys.switched_off(config)
  return [key for key in config if key not in known]


def passed_over(
  family: Family, config: dict[str, Any], names: Collection[str]
) -> list[str]:
  """Returns keys that are not read and not known to be harmless either."""
  config = family.tidy(dict(config), names)
  strange = _strange(family, config)
  return [key for key in strange if unknown_keys.passed_over(key, config)]


def check_architectures(family: Family, name: str, config: Mapping) -> None:
  """Refuses a config.json whose class belongs to another family.

  Such a file has this family's model_type, but its class computes something
  else: MT5ForConditionalGeneration under "t5", JinaBertModel under "bert".

  Args:
    family: the family of config.json's model_type.
    name: the model_type.
    config: config.json.

  Raises:
    UserError: no class in `architectures` is of the family.
  """
  classes = config.get("architectures") or []
  classes = [classes] if isinstance(classes, str) else classes
  valid = re.compile(
    rf"(TF|Flax)?{family.stem}"
    r"(Model|For[A-Z]|LMHead|With|Encoder|DoubleHeads|PreTrained)",
    re.IGNORECASE,
  )
  if not isinstance(classes, list) or not classes:
    return
  if not any(isinstance(c, str) and valid.match(c) for c in classes):
    raise UserError(
      f"architectures = {short(classes)}: is not a class of the family {name!r}"
      f", whose classes begin with {family.stem!r}; it is not supported"
    )


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
    raise UserError(f"{said}: must be one of: {listed}")
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
    raise UserError(f"{said}: is not a valid value")
  return value


def _frozen(value: Any) -> Any:
  """Converts lists to tuples, which `choices` has as keys."""
  return tuple(map(_frozen, value)) if isinstance(value, list) else value


def config_of(
  family: Family, function: Callable, section: Mapping, shapes: Shapes
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns (config.json, complete section) of one of our models.

  Args:
    family: the family to write.
    function: the function that builds the model, for its defaults.
    section: config.model, including the sizes that come from the data.
    shapes: the shapes of the model's arrays.

  Raises:
    UserError: the family cannot express the model; the message names the
      argument.
  """
  defaults = defaults_of(function)
  full = complete(family, function, section, shapes)
  for key, value in family.ours.items():
    if full[key] != value:
      raise UserError(f"config.model.{key} is {full[key]!r}, not {value!r}")
  sizes = {size.ours for size in family.sizes}
  for key, value in full.items():
    free = key in sizes or key in family.ours or key in COMPUTATION
    if not free and value != defaults[key]:
      raise UserError(f"config.model.{key} is {value!r}, not {defaults[key]!r}")
  config: dict[str, Any] = {"architectures": [family.architecture(full)]}
  for size in family.sizes:
    value = full[size.ours]
    if size.choices is not None:
      found = [t for t, ours in size.choices.items() if ours == value]
      if not found:
        raise UserError(
          f"config.model.{size.ours} is {value!r}, not one of:"
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
  """Returns {argument: its default}."""
  parameters = inspect.signature(function).parameters
  return {name: p.default for name, p in parameters.items()}


def complete(
  family: Family, function: Callable, section: Mapping, shapes: Shapes
) -> dict[str, Any]:
  """Returns all arguments of a model, with every None replaced."""
  given = {k: v for k, v in section.items() if k != "name"}
  return family.filled({**defaults_of(function), **given}, shapes)


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  """Whether two complete sections give the same outputs."""
  return all(one[key] == other[key] for key in one if key not in COMPUTATION)


def _plain(value: Any) -> Any:
  return json.loads(json.dumps(value))


def short(value: Any) -> str:
  """Returns the value's repr, truncated to 80 characters."""
  try:
    text = repr(value)
  except RecursionError:
    return "…"
  return text if len(text) <= 80 else f"{text[:79]}…"


def labels(section: Mapping) -> dict[str, Any]:
  """Returns id2label and label2id for the number of classes of our model."""
  names = [f"LABEL_{i}" for i in range(section["num_classes"])]
  return {
    "id2label": {str(i): name for i, name in enumerate(names)},
    "label2id": {name: i for i, name in enumerate(names)},
  }


def counted_labels(
  config: dict[str, Any], names: Collection[str] = ()
) -> dict[str, Any]:
  """Adds num_labels to a config.json, which may have only id2label."""
  del names
  id2label = config.get("id2label")
  count = (
    len(id2label) if isinstance(id2label, dict) else config.get("num_labels", 2)
  )
  return {**config, "num_labels": count}
