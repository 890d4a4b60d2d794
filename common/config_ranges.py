"""The valid values of the numbers in a config, by section and key.

A value outside its range would empty what a run is for (no step, no checkpoint,
no row, no update), or fail later and far from its key.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from common.errors import UserError, shown


class Range(NamedTuple):
  """The valid values of a number.

  whole: whether it must be an integer.
  least: the smallest value; excluded if `above`.
  most: the greatest value; excluded if `below`.
  none: whether None is valid as well.
  words: strings that are valid as well; "*" stands for any string.
  many: whether a list of such numbers is valid as well.
  """

  whole: bool
  least: float = -math.inf
  above: bool = False
  most: float = math.inf
  below: bool = False
  none: bool = False
  words: tuple[str, ...] = ()
  many: bool = False

  def described(self) -> str:
    """What a value must be, after "is not"."""
    text = "a whole number" if self.whole else "a finite number"
    limits = []
    if self.least > -math.inf:
      limits.append(f"{'above' if self.above else 'of at least'} {self.least}")
    if self.most < math.inf:
      limits.append(f"{'below' if self.below else 'at most'} {self.most}")
    text += "".join(f" {limit}" for limit in [" and ".join(limits)] if limit)
    others = [repr(word) for word in self.words if word != "*"]
    others += ["None"] if self.none else []
    return " or ".join([text, *others])

  def holds(self, value: Any) -> bool:
    """Whether a value is valid."""
    if isinstance(value, str):
      return value in self.words or "*" in self.words
    if value is None:
      return self.none
    if isinstance(value, (list, tuple)):
      single = self._replace(many=False, none=False)
      return self.many and all(map(single.holds, value))
    kinds = (int,) if self.whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
      return False
    # An integer of 64 bits, or a finite number.
    if abs(value) >= (2**63 if self.whole else math.inf) or value != value:
      return False
    low = value > self.least if self.above else value >= self.least
    high = value < self.most if self.below else value <= self.most
    return low and high


# Whole numbers, and real ones, of at least 0, and above it.
COUNT, AMOUNT = Range(True, 0), Range(False, 0)
SIZE, FACTOR = Range(True, 1), Range(False, 0, above=True)
SHARE, RATE = AMOUNT._replace(most=1), AMOUNT._replace(most=1, below=True)
MAYBE_SIZE, MAYBE_COUNT = SIZE._replace(none=True), COUNT._replace(none=True)
MAYBE_FACTOR, SIZES = FACTOR._replace(none=True), SIZE._replace(many=True)
ANY = Range(False, none=True)
_SCALE = FACTOR._replace(words=("dynamic",))


def _same(keys: str, valid: Range) -> dict[str, Range]:
  return dict.fromkeys(keys.split(), valid)


# Section -> key -> its range. "" is the top level.
RANGES: dict[str, dict[str, Range]] = {
  "": {
    "total_steps": COUNT,
    "batch_size": SIZE._replace(words=("all",)),
    "log_every_steps": SIZE,
  },
  "model": {
    **_same("buckets channels depth experts_per_token", SIZE),
    **_same("farthest image_size in_features latent", SIZE),
    **_same("base group mapping_layers most styles", SIZE),
    **_same(
      "max_len most_bytes ngrams order out_features types vocab_size", SIZE
    ),
    **_same(
      "capacity decoder_layers dim experts head_dim heads kv_heads", MAYBE_SIZE
    ),
    **_same("layers num_classes patch stage_microbatches window", MAYBE_SIZE),
    **_same("decode dilations encode features width widths", SIZES),
    "pooling": SIZES._replace(words=("*",)),
    **_same("filters", SIZES),
    "hidden": SIZES._replace(none=True),
    **_same("drop_path dropout feature_dropout word_dropout", RATE),
    **_same("grid stem_width token_hidden", MAYBE_SIZE),
    **_same("inner layer_scale", FACTOR),
    **_same("blocks depths dims", SIZES._replace(none=True)),
    **_same("registers text", COUNT),
    "norm_eps": AMOUNT,
    "rope_theta": FACTOR,
    "soft_cap": MAYBE_FACTOR,
    "discount": SHARE._replace(many=True, none=True),
  },
  "task": {
    **_same("alpha gp length_extra length_ratio load_balance mixup", AMOUNT),
    **_same("power r1 router_z subsample z_loss", AMOUNT),
    **_same("beta x_max", FACTOR),
    **_same("loss_chunk places start", COUNT),
    **_same("negatives noise window", SIZE),
    **_same("augment_images path_every r1_every", SIZE),
    **_same("mixing truncation", SHARE),
    "path_length": AMOUNT,
    "augment": RATE,
    **_same("entropy_weight value_weight", AMOUNT),
    **_same("eos", MAYBE_COUNT),
    "num_classes": MAYBE_SIZE,
    "label_smoothing": RATE,
  },
  "learner": {
    **_same("discriminator_steps local_steps microbatches workers", SIZE),
    "steps": SIZE,
    **_same("discount gae_lambda", SHARE),
    **_same("ema outer_momentum", RATE),
    "outer_lr": FACTOR,
    "loss_scale": _SCALE,
  },
  "optimizer": {
    **_same("lr weight_decay l1 l2 end_lr eps eps_root atol rtol", AMOUNT),
    "warmup_steps": COUNT,
    # A shape in the schedule wsd, a number of updates in plateau.
    **_same("cooldown schedule_cooldown", COUNT._replace(words=("*",))),
    **_same("clip_norm clip_value", MAYBE_FACTOR),
    "layer_decay": FACTOR._replace(most=1),
    **_same("b1 b2 b3", RATE),
    "momentum": RATE._replace(none=True),
    **_same("decay_steps every timescale transition_steps", MAYBE_SIZE),
    "cooldown_steps": MAYBE_COUNT,
    **_same("accumulation_size patience", SIZE),
    **_same("decay_rate div_factor final_div_factor factor", FACTOR),
    **_same("min_scale pct_start", SHARE),
    "boundaries": COUNT._replace(many=True),
  },
  "task.wrap": {},
  "learner.wrap": {"decay": RATE, "rho": FACTOR},
  "optimizer.wrap": {
    "every": SIZE,
    "slow_rate": FACTOR._replace(most=1),
    **_same("eta gamma", AMOUNT),
  },
  "data": {
    "seq_len": MAYBE_SIZE,
    "temperature": MAYBE_FACTOR,
    "max_bad_share": SHARE,
    "max_record_bytes": SIZE,
  },
  "data.rows": {
    **_same("max_categories max_question window", SIZE),
    **_same("buckets stride target_len", MAYBE_SIZE),
    "overlap": MAYBE_COUNT,
    "random": SHARE,
  },
  "evals": {
    **_same("every_steps attention nearest", COUNT),
    **_same("beams count length max_answer n_best num_samples", SIZE),
    **_same("max_record_bytes", SIZE),
    **_same("max_tokens seq_len", MAYBE_SIZE),
    **_same("alpha temperature", AMOUNT),
    "max_bad_share": SHARE,
    "null_threshold": ANY,
  },
  "adapt": {"alpha": FACTOR, "rank": SIZE},
  "checkpoint": {"every_steps": COUNT, "every_minutes": AMOUNT, "keep": SIZE},
  "early_stopping": {"patience": SIZE, "min_delta": AMOUNT},
  "recovery": {
    "max_dropped": COUNT,
    "spike": AMOUNT,
    "window": Range(True, 4),
    **_same("around max_rollbacks", COUNT),
  },
  "writers": {"histograms_every": COUNT},
}
_BOOLEANS = {
  "": ["log_examples"],
  "data": ["packing", "shuffle"],
  "evals": ["packing", "sampled"],
  "learner": ["baseline", "gather", "normalize"],
}
_TEXTS = {"data": ["ops", "split", "text_key"], "evals": ["split", "text_key"]}
# The optimizer's keys that may be lists of (regex, number).
_RULES = ("lr", "weight_decay", "l1", "l2")


def check(config: Mapping[str, Any]) -> None:
  """Checks every number of a complete config.

  Raises:
    UserError: names the first key whose value is not valid.
  """
  for section, where, settings in _sections(config):
    ranges = RANGES[section]
    for key, value in settings.items():
      name = f"{where}.{key}"
      if section == "optimizer" and key in _RULES and _is_list(value):
        value = [rule[-1] if _is_list(rule) else rule for rule in value]
        valid = AMOUNT._replace(many=True, words=("*",))
      else:
        valid = ranges.get(key)
      if valid is not None and not valid.holds(value):
        raise UserError(f"{name}={shown(value)}: not {valid.described()}")
      if key in _BOOLEANS.get(section, ()) and type(value) is not bool:
        raise UserError(f"{name}={shown(value)}: neither True nor False")
      if key in _TEXTS.get(section, ()) and not isinstance(value, str):
        raise UserError(f"{name}={shown(value)}: not a string")
  for key, value in config["mesh"].items():
    if value == 0:
      raise UserError(f"config.mesh.{key}=0: not a size of at least 1, nor -1")
  _check_finite("config", config)
  _check_rate(config)


def _sections(config) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
  """Yields (key of RANGES, the section's name in messages, its settings)."""
  yield "", "config", config
  for section in RANGES:
    if section in ("", "data.rows", "evals", "writers"):
      continue
    if section.endswith(".wrap"):
      found = config[section.removesuffix(".wrap")].get("wrap", ())
      for i, settings in enumerate(found):
        yield section, f"config.{section}[{i}]", settings
    else:
      yield section, f"config.{section}", config[section]
  rows = config["data"].get("rows")
  if isinstance(rows, Mapping):
    yield "data.rows", "config.data.rows", rows
  for key, settings in config["evals"].items():
    yield "evals", f"config.evals.{key}", settings
    if isinstance(settings.get("rows"), Mapping):
      yield "data.rows", f"config.evals.{key}.rows", settings["rows"]
  for i, settings in enumerate(config["writers"]):
    yield "writers", f"config.writers[{i}]", settings


def _check_finite(where: str, value: Any) -> None:
  """Refuses NaN and infinity at any depth."""
  if isinstance(value, Mapping):
    for key, inner in value.items():
      _check_finite(f"{where}.{key}", inner)
  elif _is_list(value):
    for i, inner in enumerate(value):
      _check_finite(f"{where}[{i}]", inner)
  elif isinstance(value, float) and not math.isfinite(value):
    raise UserError(f"{where}={value}: not a finite number")


def _check_rate(config) -> None:
  """Refuses a learning rate of 0, unless the learner has no use for one."""
  lr = config["optimizer"].get("lr", 1)
  numbers = [rule[-1] for rule in lr] if _is_list(lr) else [lr]
  if config["learner"].get("name") != "counting" and not any(numbers):
    raise UserError(
      f"config.optimizer.lr={shown(lr)}: no parameter would change; set a"
      " number above 0"
    )


def _is_list(value: Any) -> bool:
  return isinstance(value, (list, tuple))
