"""The plan of a run: its config, and its input divided into shards."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from common.names import nearest
from input_pipeline.bad_records import Policy, policy
from input_pipeline.preparation import stages
from input_pipeline.reading import files
from input_pipeline.reading import open as reading

# To be changed whenever the same config gives other bytes.
_FORMAT = 1
_PROBE = 2**16

_SECTIONS: dict[str, dict[str, Any]] = {
  "data": {
    "source": None,
    "text_key": "text",
    # Files are joined into shards of up to this size.
    "shard_bytes": 2**25,
    # "stop" if a file cannot be read to its end, or "skip" the rest of it.
    "on_bad_record": "stop",
    "max_bad_share": 0.05,
    "max_record_bytes": 2**28,
  },
  "output": {
    "name": "prepared",
    "tfds": False,
    "shard_bytes": 2**28,
    "tokenizer": None,
  },
  "card": {
    "name": "",
    "origin": "",
    "licence": "",
    "contact": "",
    "purpose": "",
    "known_gaps": "",
  },
  "run": {"total_steps": None, "batch_size": None, "seq_len": None},
}


class Plan(NamedTuple):
  """A run of `prepare`, as it is sent to the workers.

  config: the complete config as plain data.
  shards: the files of each shard.
  folder: of the output.
  documents: whether to write documents.jsonl.
  """

  config: Mapping[str, Any]
  shards: list[list[str]]
  folder: str
  documents: bool

  @property
  def work(self) -> str:
    """The folder of intermediate results."""
    return f"{self.folder}/work"

  @property
  def policy(self) -> Policy:
    """The policy for bad records: a single one does not end the run."""
    data = self.config["data"]
    return policy("skip", data["max_bad_share"], data["max_record_bytes"])

  def passes(self) -> list[stages.Pass]:
    """The passes: stages between two comparisons of the whole corpus."""
    return stages.passes(self.config["stages"])


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config as plain data with defaults filled in.

  Raises:
    ValueError: a key is unknown, missing or has the wrong type; one line.
  """
  for key in config:
    _known("config", key, [*_SECTIONS, "stages"])
  found: dict[str, Any] = {}
  for section, defaults in _SECTIONS.items():
    given = dict(config.get(section) or {})
    for key in given:
      _known(f"config.{section}", key, list(defaults))
    found[section] = {**defaults, **given}
  if not isinstance(found["data"]["source"], str):
    raise ValueError("config.data.source is required: a URI such as warc:GLOB")
  if not isinstance(found["output"]["tfds"], bool):
    raise ValueError(
      f"config.output.tfds={found['output']['tfds']!r} is neither True nor "
      "False"
    )
  policy(found["data"]["on_bad_record"])
  for section in ("data", "output"):
    size = found[section]["shard_bytes"]
    if not isinstance(size, int) or size < 1:
      raise ValueError(
        f"config.{section}.shard_bytes={size!r} is not a positive integer"
      )
  found["stages"] = [dict(stage) for stage in config.get("stages") or ()]
  found = json.loads(json.dumps(found))
  stages.passes(found["stages"])
  return found


def _known(where: str, key: str, keys: list[str]) -> None:
  if key not in keys:
    raise ValueError(
      f"{where}.{key} is unknown{nearest(key, keys)}"
      f" (there are: {', '.join(keys)})"
    )


def plan(config: Mapping[str, Any], folder: str, documents: bool) -> Plan:
  """The Plan of a complete config; the same files give the same shards."""
  paths = reading.files(config["data"]["source"])
  shards: list[list[str]] = []
  most = config["data"]["shard_bytes"]
  filled = most
  for path in paths:
    size = _size(path)
    if not shards or filled + size > most:
      shards.append([])
      filled = 0
    shards[-1].append(path)
    filled += size
  return Plan(config, shards, folder.rstrip("/"), documents)


def _size(path: str) -> int:
  """The size in bytes; large for remote files, so that each is a shard."""
  if "://" in path:
    return 2**62
  return os.path.getsize(path) if os.path.isfile(path) else 0


class Identity(NamedTuple):
  """Digests of everything that the results of a run depend on.

  passes: of the input and the stages, whose work takes long.
  whole: of these and of how the output is divided and tokenized.
  """

  passes: str
  whole: str


def identity(plan: Plan) -> Identity:
  """The Identity of a run: the same config and input have the same one."""
  tolerated = ("max_bad_share", "on_bad_record")
  data = {k: v for k, v in plan.config["data"].items() if k not in tolerated}
  digest = hashlib.sha256()
  digest.update(json.dumps([_FORMAT, data, plan.config["stages"]]).encode())
  for shard in plan.shards:
    for path in shard:
      digest.update(f"\0{os.path.basename(path)}\0{_size(path)}\0".encode())
      digest.update(_probe(path))
  passes = digest.hexdigest()
  config = {**plan.config, "data": dict(plan.config["data"])}
  # The default is left out: folders of before the setting stay valid.
  if config["data"]["on_bad_record"] == "stop":
    del config["data"]["on_bad_record"]
  digest.update(json.dumps([config, plan.documents]).encode())
  return Identity(passes, digest.hexdigest())


def _probe(path: str) -> bytes:
  """The first and last bytes of a file, to detect changes."""
  if "://" in path or not os.path.isfile(path):
    return path.encode()
  with open(path, "rb") as file:
    first = file.read(_PROBE)
    file.seek(max(len(first), os.path.getsize(path) - _PROBE))
    return first + file.read(_PROBE)


def _name(identity: Identity) -> str:
  return f"plan-{identity.passes[:16]}-{identity.whole[:16]}.json"


def saved(plan: Plan) -> list[str]:
  """The names of the plans with work in the folder: one or none."""
  found = files.names(plan.work)
  return [n for n in found if n.startswith("plan-") and n.endswith(".json")]


def is_of(name: str, identity: Identity) -> tuple[bool, bool]:
  """Whether a name of `saved` matches an identity in its passes, and whole."""
  own = _name(identity)
  return name.split("-")[1] == own.split("-")[1], name == own


def save(plan: Plan, identity: Identity) -> str:
  """Writes the plan for the workers, and returns its path."""
  path = f"{plan.work}/{_name(identity)}"
  files.write(path, json.dumps(plan._asdict()).encode())
  return path


def load(path: str) -> Plan:
  """Reads the plan that `save` wrote."""
  return Plan(**json.loads(files.read(path)))
