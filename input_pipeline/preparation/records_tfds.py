"""Records as a TFDS data set, which tfds:NAME?data_dir=DIR reads.

DIR/NAME/VERSION contains files such as NAME-SPLIT.array_record-00000-of-00002,
with a tf.train.Example for each record, and the metadata that TFDS writes.
"""

import json
import math
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from input_pipeline.tensorflow_cpu import import_tensorflow

# One record per chunk, as TFDS writes, for random access.
_OPTIONS = "group_size:1"
_MOST = float(np.finfo(np.float32).max)
# type of a value -> kind of its field
_KINDS = {str: "string", bool: "int64", int: "int64", float: "float32"}


def shard_path(
  folder: str, name: str, version: str, split: str, shard: int, shards: int
) -> str:
  """The path at which TFDS looks for a shard.

  Raises:
    ValueError: the name, the version or the split is not valid in TFDS.
  """
  for what, given, pattern in (
    ("name", name, r"[a-z][a-z0-9_]*"),
    ("version", version, r"\d+\.\d+\.\d+"),
    ("split", split, r"\w+"),
  ):
    if not re.fullmatch(pattern, given, re.ASCII):
      raise ValueError(f"TFDS {what} {given!r} does not match {pattern}")
  file = f"{name}-{split}.array_record-{shard:05}-of-{shards:05}"
  return os.path.join(os.path.expanduser(folder), name, version, file)


def kinds(sample: Mapping[str, Any]) -> dict[str, str]:
  """{field: "string", "int64", "float32" or "json"} for records like a sample.

  A bool is an int64; a list, a dict or None is written as JSON.
  """
  return {k: _KINDS.get(type(v), "json") for k, v in sample.items()}


def write_shard(
  path: str,
  records: Iterable[Mapping[str, Any]],
  fields: Mapping[str, str] | None = None,
) -> tuple[int, int]:
  """Writes a file of records; the same records give the same bytes.

  Args:
    path: from shard_path; the file is written whole or not at all.
    records: {field: value}, all with the same fields.
    fields: from `kinds`; by default the kinds of the first record.

  Returns:
    (number of records, number of bytes), for write_metadata.

  Raises:
    ValueError: a record has other fields or kinds, or array_record is not
      installed.
  """
  tf = import_tensorflow()
  module = _array_record()
  os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
  temporary = f"{path}.{uuid.uuid4().hex}.tmp"
  count = size = 0
  try:
    writer = module.ArrayRecordWriter(temporary, _OPTIONS)
    try:
      for record in records:
        fields = fields or kinds(record)
        content = _serialized(record, fields, count, tf)
        writer.write(content)
        count, size = count + 1, size + len(content)
    finally:
      writer.close()
    os.replace(temporary, path)
  except BaseException:
    if os.path.exists(temporary):
      os.unlink(temporary)
    raise
  return count, size


def write_metadata(
  folder: str,
  name: str,
  version: str,
  splits: Mapping[str, Mapping[str, Any]],
  sample: Mapping[str, Any],
) -> None:
  """Writes the metadata of existing shards.

  Args:
    folder: DIR of tfds:NAME?data_dir=DIR.
    name: of the data set: lower-case letters, digits and "_".
    version: such as "1.0.0".
    splits: {split: {"shard_lengths": [records of each shard], "bytes": n}}.
    sample: a record with the fields of all records.

  Raises:
    ValueError: a shard is missing, or TFDS is not installed.
  """
  tfds = _tfds()
  types = {"int64": np.int64, "float32": np.float32}
  features = {
    field: tfds.features.Scalar(types[kind])
    if kind in types
    else tfds.features.Text()
    for field, kind in kinds(sample).items()
  }
  infos = []
  for split, found in splits.items():
    lengths = [int(n) for n in found["shard_lengths"]]
    for shard in range(len(lengths)):
      path = shard_path(folder, name, version, split, shard, len(lengths))
      if not os.path.isfile(path):
        raise ValueError(f"{path} does not exist")
    template = tfds.core.ShardedFileTemplate(
      data_dir=os.path.dirname(path),
      dataset_name=name,
      split=split,
      filetype_suffix="array_record",
    )
    infos.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=lengths,
        num_bytes=int(found["bytes"]),
        filename_template=template,
      )
    )
  tfds.folder_dataset.write_metadata(
    data_dir=os.path.dirname(path),
    features=features,
    split_infos=infos,
    version=version,
    # TFDS would check it with tf.data, which does not support array_record.
    check_data=False,
  )


def _serialized(
  record: Mapping[str, Any], fields: Mapping[str, str], place: int, tf: Any
) -> bytes:
  where = f"record {record.get('id', place)!r}"
  if set(record) != set(fields):
    field = min(set(record) ^ set(fields))
    raise ValueError(f"{where}: the field {field!r} is not in all records")
  features = {}
  for field, kind in fields.items():
    try:
      features[field] = _feature(record[field], kind, tf)
    except (TypeError, ValueError, OverflowError) as error:
      raise ValueError(
        f"{where}: the field {field!r} is not {kind}: {error}"
      ) from None
  example = tf.train.Example(features=tf.train.Features(feature=features))
  return example.SerializeToString(deterministic=True)


def _feature(value: Any, kind: str, tf: Any):
  if kind == "int64":
    if not isinstance(value, int):
      raise TypeError(f"{value!r}")
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))
  if kind == "float32":
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      raise TypeError(f"{value!r}")
    if math.isfinite(value) and abs(value) > _MOST:
      raise ValueError(f"{value!r} is too large")
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
  if kind == "json":
    value = json.dumps(value, ensure_ascii=False, sort_keys=True)
  elif not isinstance(value, str):
    raise TypeError(f"{value!r}")
  content = tf.train.BytesList(value=[value.encode()])
  return tf.train.Feature(bytes_list=content)


def _array_record():
  try:
    from array_record.python import array_record_module
  except ImportError:
    raise ValueError(
      "TFDS records need array_record, which is not installed: "
      "pip install -e '.[data]'"
    ) from None
  return array_record_module


def _tfds():
  # TFDS would import TensorFlow in a way that occupies the accelerators.
  import_tensorflow()
  try:
    import tensorflow_datasets
  except ImportError:
    raise ValueError(
      "TFDS records need tensorflow-datasets, which is not installed: "
      "pip install -e '.[data]'"
    ) from None
  return tensorflow_datasets
