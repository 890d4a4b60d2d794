"""npy:DIR: arrays on disk as the fields of a source."""

import glob
import os

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source


def npy(folder: str, policy: Policy = Policy()) -> dict[str, Source]:
  """npy:DIR: a field per file DIR/NAME.npy, [examples, ...], memory-mapped.

  Integers in "label" are classes. Arrays of objects are refused.

  Raises:
    ValueError: there is no such file, one is broken, or their lengths differ.
  """
  del policy  # The header bounds the size of a record.
  uri = f"npy:{folder}"
  paths = sorted(
    glob.glob(os.path.join(glob.escape(os.path.expanduser(folder)), "*.npy"))
  )
  if not paths:
    raise ValueError(f"{uri} holds no .npy file")
  arrays = {}
  for path in paths:
    name = os.path.basename(path).removesuffix(".npy")
    arrays[name] = _mapped(path)
    first = arrays[next(iter(arrays))]
    if len(arrays[name]) != len(first):
      raise ValueError(
        f"{path}: {len(arrays[name])} examples, but {paths[0]} has {len(first)}"
      )
  classes = None
  if "label" in arrays and arrays["label"].dtype.kind in "iu":
    classes = int(arrays["label"].max(initial=-1)) + 1

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(a[indices]) for name, a in arrays.items()}

  return {
    "all": Source(
      len(first),
      read,
      lambda index: f"{uri} example {index}",
      num_classes=classes,
      fingerprint=fingerprint(paths),
    )
  }


def _mapped(path: str) -> np.ndarray:
  try:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    reason = str(error).splitlines()[0]
    raise ValueError(f"{path}: not an array of numbers: {reason}") from None
  if not isinstance(array, np.ndarray) or array.ndim == 0:
    raise ValueError(f"{path}: the array has no axis of examples")
  if array.dtype.kind not in "biuf":
    raise ValueError(f"{path}: holds {array.dtype}, not numbers")
  return array
