"""npy:DIR: arrays on disk as the fields of a source."""

import collections
import os

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import endings
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source


def npy(folder: str, policy: Policy = Policy()) -> dict[str, Source]:
  """npy:DIR: a field per file DIR/NAME.npy, [examples, ...], memory-mapped.

  Integers in "label" are classes. Arrays of objects are refused. A note names
  files of other formats, such as .npz.

  Raises:
    ValueError: there is no such file, one is broken, or their lengths differ.
  """
  del policy  # The header bounds the size of a record.
  uri = f"npy:{folder}"
  root = os.path.expanduser(folder)
  found = sorted(os.listdir(root)) if os.path.isdir(root) else []
  found = [name for name in found if not name.startswith(".")]
  paths = [os.path.join(root, n) for n in found if n.lower().endswith(".npy")]
  left = collections.Counter(map(endings.of, found))
  del left[""], left[".npy"]
  if not paths:
    raise ValueError(f"{uri} holds no .npy file")
  arrays = {}
  for path in paths:
    name = os.path.basename(path)[: -len(".npy")]
    arrays[name] = _mapped(path)
    first = arrays[next(iter(arrays))]
    if len(arrays[name]) != len(first):
      raise ValueError(
        f"{path}: {len(arrays[name])} examples, but {paths[0]} has {len(first)}"
      )
  classes = None
  if "label" in arrays and arrays["label"].dtype.kind in "iu":
    classes = int(arrays["label"].max()) + 1 if len(first) else 0

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(a[indices]) for name, a in arrays.items()}

  return {
    "all": Source(
      len(first),
      read,
      lambda index: f"{uri} example {index}",
      num_classes=classes,
      fingerprint=fingerprint(paths),
      note=f"{uri}: not read: {', '.join(sorted(left))} files" if left else "",
      unread=tuple(sorted(left.items())),
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
