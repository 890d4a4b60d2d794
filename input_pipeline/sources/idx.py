"""idx:DIR: the files of the MNIST family."""

import functools
import math
import os

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import (
  bounded,
)
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts import query


def idx(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """idx:DIR: the files of the MNIST family, optionally gzipped.

  train-{images-idx3,labels-idx1}-ubyte and t10k-..., as "train" and "test":
  {"image": uint8 [h, w, 1], "label": int32 []}. The labels are read at once; if
  the file of the images is broken, each of them is a bad record. A prediction
  needs no labels. The size of a record is bounded by the header.

  idx:DIR?classes=5,7,9 has the examples of these classes alone, whose labels
  become 0, 1, 2 in this order.
  """
  uri = f"idx:{rest}"
  folder, settings = query.split(rest, "idx", {"classes": ("",)})
  wanted = _classes(uri, settings["classes"])
  folder = os.path.expanduser(folder)
  natives = {}
  for prefix, split in (("train", "train"), ("t10k", "test")):
    images = _idx_path(folder, f"{prefix}-images", 3)
    labels = _idx_path(folder, f"{prefix}-labels", 1)
    if images and (labels or not policy.labels):
      natives[split] = _idx_split(images, labels, wanted)
    elif images or labels:
      kind = "labels" if images else "images"
      raise ValueError(f"{uri} has no {prefix}-{kind} file")
  if "train" not in natives and (policy.labels or not natives):
    raise ValueError(f"{uri} has no train-images-idx3-ubyte[.gz]")
  classes = max(native.num_classes or 0 for native in natives.values())
  return {k: v._replace(num_classes=classes) for k, v in natives.items()}


def _classes(uri: str, given: str) -> list[int] | None:
  """The numbers of the setting `classes`; None without it."""
  if not given:
    return None
  found = given.split(",")
  if len(set(found)) != len(found) or not all(
    each.isascii() and each.isdigit() for each in found
  ):
    raise ValueError(f"{uri}: classes={given!r} are not different numbers")
  return [int(each) for each in found]


def _idx_path(folder: str, stem: str, rank: int) -> str | None:
  for name in (f"{stem}-idx{rank}-ubyte", f"{stem}.idx{rank}-ubyte"):
    for suffix in ("", ".gz"):
      path = os.path.join(folder, name + suffix)
      if os.path.isfile(path):
        return path
  return None


def _idx_bytes(path: str, size: int) -> bytes:
  """Returns the first bytes of a file, decompressed, or all if it has fewer."""
  found = bytearray()
  for chunk in bounded.chunks(path):
    found += chunk[: size - len(found)]
    if len(found) >= size:
      break
  return bytes(found)


def _idx_shape(path: str, rank: int) -> tuple[int, ...]:
  """Returns the header's shape: big-endian int32 after the magic number."""
  header = _idx_bytes(path, 4 + 4 * rank)
  magic = 0x0800 + rank
  if len(header) < 4 + 4 * rank or int.from_bytes(header[:4], "big") != magic:
    raise ValueError(
      f"{path}: not an idx file: magic number {magic:#010x} is missing"
    )
  return tuple(int(n) for n in np.frombuffer(header[4:], ">u4"))


def _idx_array(path: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns the array of an idx file; memory-mapped unless compressed."""
  start, size = 4 + 4 * len(shape), math.prod(shape)
  if path.endswith(".gz"):
    bounded.check_inflated(path, start + size)
    # One byte more than expected shows that the file is too long.
    data = np.frombuffer(_idx_bytes(path, start + size + 1), np.uint8)[start:]
  else:
    data = np.memmap(path, np.uint8, mode="r")[start:]
  if data.size != size:
    more = "more" if data.size > size else f"{data.size:,}"
    raise ValueError(
      f"{path}: {more} bytes of data, but its header specifies {size:,}"
    )
  return data.reshape(shape)


def _idx_split(
  image_path: str, label_path: str | None, wanted: list[int] | None
) -> Source:
  shape = _idx_shape(image_path, 3)
  (count,) = _idx_shape(label_path, 1) if label_path else shape[:1]
  if shape[0] != count:
    raise ValueError(f"{image_path}: {shape[0]} images, but {count} labels")
  labels = np.zeros(count, np.int32)
  if label_path:
    labels = _idx_array(label_path, (count,)).astype(np.int32)
  places = np.arange(count)
  if wanted is not None and label_path:
    unknown = sorted(set(wanted) - set(labels.tolist()))
    if unknown:
      raise ValueError(f"{label_path} has no label {unknown[0]}")
    number = {old: new for new, old in enumerate(wanted)}
    places = np.flatnonzero(np.isin(labels, wanted))
    chosen = [number[old] for old in labels[places].tolist()]
    labels = np.array(chosen, np.int32)

  # Opening one split must not decompress the other.
  @functools.cache
  def images() -> np.ndarray | str:
    try:
      return _idx_array(image_path, shape)
    except ValueError as error:
      return str(
        error
      )  # Kept; otherwise each record would decompress the file again.

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = images()
    if isinstance(found, str):
      raise ValueError(found)
    images_BHW = found[places[indices]]
    return {"image": images_BHW[..., None], "label": labels[indices]}

  return Source(
    len(places),
    read,
    lambda index: f"{image_path} image {places[index]}",
    num_classes=int(labels.max(initial=-1)) + 1,
    fingerprint=fingerprint([p for p in (image_path, label_path) if p])
    + (f" {wanted}" if wanted is not None else ""),
  )
