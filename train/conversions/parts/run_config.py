"""The config of the run that a pretrained model becomes."""

from typing import Any

import numpy as np

from common import config_keys
from common.leaf import Leaf, Spec
from input_pipeline.batching import pipeline
from train import run_data

_BATCH, _LONGEST = 8, 1024


def described(found, words, source) -> tuple[dict[str, Any], pipeline.Data]:
  """Returns (config, Data) of a run with the pretrained model.

  Args:
    found: the weights.Pretrained.
    words: its tokenizer, or None.
    source: the URI of data for evaluation; None for fake data.
  """
  model = found.model
  spec, data = (_images if "channels" in model else _texts)(model)
  if words is not None:
    data["tokenizer"] = words.spec
  if source is not None:
    data["source"] = source
  task = found.family.task(model, found.config)
  known = words is not None or "image" in spec
  if task["name"] in ("language_modeling", "image_classification"):
    measured = known
  else:  # there is no fake data for these tasks
    measured = known and "rows" in data and source is not None
  evals = {"val": {"name": "mean", "split": "validation"}}
  config = config_keys.complete(
    {
      "total_steps": 0,
      "batch_size": _BATCH,
      "task": task,
      "model": model,
      "learner": {"name": "supervised"},
      "optimizer": {"name": "sgd", "lr": 1e-3},
      "data": data,
      "evals": evals if measured else {},
    }
  )
  data = pipeline.Data(
    spec=spec,
    num_examples=0,
    num_classes=model.get("num_classes"),
    tokenizer=words,
    batches=lambda first_step: iter(()),
    batch_size=_BATCH,
  )
  return config, run_data.described(data, config)


_FLOAT, _INT = np.dtype(np.float32), np.dtype(np.int32)
_ALWAYS = {"mask": Leaf((), _FLOAT), "index": Leaf((), _INT)}


def _images(model) -> tuple[Spec, dict[str, Any]]:
  """Returns (leaves of a batch, config.data) for labeled images."""
  size, channels = model.get("image_size", 224), model["channels"]
  fake = (
    f"fake:image?size={size}&channels={channels}&classes={model['num_classes']}"
  )
  image = Leaf((size, size, channels), _FLOAT)
  label = Leaf((), _INT)
  return {**_ALWAYS, "image": image, "label": label}, {"source": fake}


def _texts(model) -> tuple[Spec, dict[str, Any]]:
  """Returns (leaves of a batch, config.data) for texts."""
  T = min(model.get("max_len", _LONGEST), _LONGEST)
  data = {"source": "fake:text", "seq_len": T}
  leaves = dict.fromkeys(("inputs", "targets"), Leaf((T,), _INT))
  leaves |= {"mask": Leaf((T,), _FLOAT), "bytes": Leaf((), _FLOAT)}
  if "head" in model:
    leaves = dict.fromkeys(("tokens", "types", "segments"), Leaf((T,), _INT))
    if model["head"] == "classes":
      data["rows"] = {"name": "labeled"}
      leaves["label"] = Leaf((), _INT)
  return {**_ALWAYS, **leaves}, data
