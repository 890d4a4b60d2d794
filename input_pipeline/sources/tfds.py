"""tfds:NAME?data_dir=DIR: TensorFlow Datasets, with random access."""

import functools
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import image_size
from input_pipeline.reading.columns import strings
from input_pipeline.sources import Source
from input_pipeline.tensorflow_cpu import import_tensorflow

# A path or a namespace is refused: TFDS would run third-party code for it.
_NAME = re.compile(r"\w+(/\w[\w.+-]*)?(:(\d+|\*)(\.(\d+|\*)){2})?", re.ASCII)


def tfds(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """Opens a TFDS data set, downloading and preparing it if necessary.

  It is prepared as array_record. NAME may include a config and a version:
  "glue/sst2:2.0.0". Images stay encoded, for the op `decode`. The fields are
  the features of a fixed shape, the strings, and numbers of which the first
  axis differs between records; nested features have names such as
  "objects/bbox". A note names the others, which no batch can hold. The size of
  a record is checked after reading it, that of its images before decoding.
  """
  uri = f"tfds:{rest}"
  name, _, query = rest.partition("?")
  options = dict(urllib.parse.parse_qsl(query))
  written = query.removeprefix("data_dir=")
  if written != query and os.path.isdir(written):  # not to be decoded
    options = {"data_dir": written}
  if unknown := set(options) - {"data_dir"}:
    raise ValueError(f"{uri}: unknown option {min(unknown)!r}; valid: data_dir")
  if not _NAME.fullmatch(name):
    raise ValueError(
      f"{uri}: {name!r} is not NAME or NAME/CONFIG, optionally with :VERSION"
    )
  library = _import()
  try:
    builder = library.builder(name, data_dir=options.get("data_dir"))
  except (
    Exception
  ) as error:  # Each kind of missing data raises a different error.
    raise ValueError(f"{uri}: {_first_line(error)}") from None
  _prepare(builder, library, uri)
  splits = {s: builder.info.splits[s] for s in builder.info.splits}
  return {s: _split(builder, library, s, uri, policy) for s in splits}


def _import():
  # Imported first, in this way: TFDS would let TensorFlow use the accelerators.
  import_tensorflow()
  try:
    import tensorflow_datasets
  except ImportError:
    raise ValueError(
      "tfds: needs tensorflow-datasets: pip install -e '.[data]'"
    ) from None
  return tensorflow_datasets


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return lines[0] if lines else type(error).__name__


def _prepare(builder: Any, library: Any, uri: str) -> None:
  advice = "prepare it on a machine with network access, or set data_dir"
  try:
    if not builder.is_prepared():
      builder.download_and_prepare(file_format="array_record")
    builder.as_data_source(next(iter(builder.info.splits)))
  except NotImplementedError:
    raise ValueError(
      f"{uri}: {builder.data_dir} has no random access; prepare it again "
      'with file_format="array_record"'
    ) from None
  except ImportError as error:
    raise ValueError(f"{uri}: {_first_line(error)}") from None
  except (
    Exception
  ) as error:  # Downloads raise too many kinds of errors to list.
    raise ValueError(
      f"{uri} is not prepared in {builder.data_dir} and cannot be downloaded "
      f"({type(error).__name__}: {_first_line(error)}); {advice}"
    ) from None


def _split(
  builder: Any, library: Any, split: str, uri: str, policy: Policy
) -> Source:
  features = builder.info.features
  images = [
    k for k, f in features.items() if isinstance(f, library.features.Image)
  ]
  known = dict(_leaves(features.get_tensor_info()))
  fields = {
    path: info if None in info.shape and path not in images else None
    for path, info in known.items()
    if path in images or _is_held(info)
  }
  lost = ", ".join(path for path in known if path not in fields)
  label = dict(features.items()).get("label")
  classes = names = None
  if isinstance(label, library.features.ClassLabel):
    classes = label.num_classes
    names = tuple(label.names)

  @functools.cache
  def data() -> Any:
    decoders = {k: library.decode.SkipDecoding() for k in images}
    return builder.as_data_source(split, decoders=decoders)

  def name(index: int) -> str:
    return f"{uri} {split} example {index}"

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    try:
      examples = data().__getitems__([int(i) for i in indices])
    except (
      Exception
    ) as error:  # Each kind of broken file raises a different error.
      for i in indices if len(indices) > 1 else ():
        read(np.array([i]))
      file = _file(builder.info.splits[split], int(indices[0]))
      where = f"{file}: {name(int(indices[0]))}"
      raise ValueError(f"{where}: {_first_line(error)}") from None
    for i, example in zip(indices, examples, strict=True):
      for field in images:
        image_size.check_image(example[field], name(int(i)), policy)
    return {
      path: _column([_at(each, path) for each in examples], ragged)
      for path, ragged in fields.items()
    }

  return Source(
    builder.info.splits[split].num_examples,
    read,
    name,
    num_classes=classes,
    class_names=names,
    note=f"{uri}: no batch can hold {lost}" if lost else "",
    fingerprint=f"{builder.info.full_name} {builder.data_dir}",
  )


def _file(split: Any, index: int) -> str:
  """Returns the file that holds an example."""
  ends = np.cumsum(split.shard_lengths)
  return str(split.filepaths[int(np.searchsorted(ends, index, side="right"))])


def _leaves(info: Any, path: str = "") -> Iterator[tuple[str, Any]]:
  """Yields (path, TensorInfo) of nested features, as in "objects/bbox"."""
  if isinstance(info, Mapping):
    for key, inner in info.items():
      yield from _leaves(inner, f"{path}/{key}" if path else key)
  elif not isinstance(info, (list, tuple)):
    yield path, info


def _at(example: Any, path: str) -> Any:
  """Returns the value at the path of a nested feature."""
  for key in [path] if path in example else path.split("/"):
    example = example[key]
  return example


def _is_held(info: Any) -> bool:
  """Returns whether a field can hold it: only its first axis may differ."""
  number = np.dtype(info.np_dtype).kind in "biuf"
  return None not in info.shape or (number and None not in info.shape[1:])


def _column(values: list[Any], ragged: Any) -> np.ndarray:
  """Returns the values of a field; `ragged` is its TensorInfo if it is so."""
  if ragged is not None:
    dtype, tail = ragged.np_dtype, ragged.shape[1:]
    return strings([np.asarray(v, dtype).reshape(-1, *tail) for v in values])
  if values and isinstance(values[0], (bytes, str)):
    column = np.empty(len(values), object)
    column[:] = values
    return column
  return np.array(values)
