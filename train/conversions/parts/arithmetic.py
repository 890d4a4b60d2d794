"""Compares the settings of two models that change what their parameters mean.

Parameters of equal shapes compute something else under another number of heads,
another rope_theta, epsilon or activation. A difference in a size is visible in
the shapes of the parameters, which are compared where they are loaded.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from models.vision import vit
from train.conversions.parts import family, weights

# Visible in the shapes of the parameters that are loaded, or of no effect on
# what they compute: sizes, the outputs of a new head, words from the data.
_FREE = {
  *("name", "vocab_size", "num_classes", "max_len", "types", "counts", "eos"),
  *("layers", "decoder_layers", "dim", "hidden", "experts", "buckets"),
  *("image_size", "channels", "features", "in_features", "out_features"),
  *("latent", "width", "widths", "filters", "patch", "depth", "capacity"),
  *("head", "next_sentence", "word_dropout", "feature_dropout"),
  *("depths", "dims", "stem_width", "blocks", "grid", "token_hidden"),
  *("layer_scale", "variant", "inner", "bottleneck", "position_init"),
  *family.COMPUTATION,
}
# Of these only matters whether they are None, which switches them off.
_SWITCHES = {"layer_scale"}
_BODY = r"^(?!.*embedding).*"
# key -> a regex of the parameters whose meaning it changes; `_BODY` otherwise.
_CONCERNS = {
  **dict.fromkeys(
    ("heads", "kv_heads", "head_dim", "window", "soft_cap", "rope_theta")
    + ("rope_scaling", "scale_scores", "farthest"),
    r"attention",
  ),
  **dict.fromkeys(("norm", "norm_eps"), r"norm"),
  "tie_embeddings": r"embedding",
  "scale_embeddings": r"embedding",
  "bert.pooling": r"^head/",
  "vit.pool": r"^head/",
}
# Keys that mean the same in every model.
_SHARED = {
  *("heads", "kv_heads", "head_dim", "window", "soft_cap", "rope_theta"),
  *("rope_scaling", "norm", "norm_eps", "norm_first", "activation"),
}


def differences(
  theirs: Mapping[str, Any], ours: Mapping[str, Any], loaded: Collection[str]
) -> list[str]:
  """Returns "KEY (theirs there, ours here)" of each setting that differs.

  Args:
    theirs: config.model of the model whose parameters are loaded.
    ours: config.model of this run. Both may leave out keys with defaults.
    loaded: the paths of the parameters that are loaded.
  """
  one, other = _complete(theirs), _complete(ours)
  alike = one["name"] == other["name"]
  found = []
  for key in one:
    if key not in other or not (alike or key in _SHARED):
      continue
    switched = key in _SWITCHES and (one[key] is None) != (other[key] is None)
    if key in _FREE and not switched:
      continue
    concern = _CONCERNS.get(f"{one['name']}.{key}", _CONCERNS.get(key, _BODY))
    if one[key] != other[key] and any(re.search(concern, p) for p in loaded):
      found.append(f"{key} ({one[key]!r} there, {other[key]!r} here)")
  return found


def _complete(section: Mapping[str, Any]) -> dict[str, Any]:
  """All settings of a model; None is replaced by what it stands for."""
  defaults = family.defaults_of(weights.function(section["name"]))
  # A required argument has inspect's mark in place of a default.
  full = json.loads(
    json.dumps({**defaults, **section}, default=lambda mark: None)
  )
  if full["name"] == "vit":
    sizes = vit.sizes(full.pop("variant"))
    for key, value in zip(("layers", "dim", "heads"), sizes, strict=False):
      full[key] = full[key] or value
  if full.get("heads"):
    if "kv_heads" in full:
      full["kv_heads"] = full["kv_heads"] or full["heads"]
    full["head_dim"] = full.get("head_dim") or full["dim"] // full["heads"]
  if full.get("norm") == "frozen":
    full["norm"] = "batch"  # They differ in training alone.
  if full.get("positions") != "rotary":
    full.pop("rope_theta", None)
    full.pop("rope_scaling", None)
  scaling = full.get("rope_scaling")
  if scaling and scaling.get("rope_type") == "default":
    full["rope_scaling"] = None
  return full
