"""Searches for settings of a config that fit into memory or run fastest."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from common import names
from common.errors import UserError
from train import assembly, sharding
from train.planning import (
  analytic,
  batch_spec,
  compile_ahead,
  summary,
  topology,
)

# From no rematerialization to full rematerialization.
REMATS = ("none", "dots", "attention", "full")
MICROBATCHES = (1, 2, 4, 8, 16)


class Knob(NamedTuple):
  """Settings of a config, as {key: value} with keys such as "model.remat"."""

  settings: dict[str, Any]

  def spelled(self) -> str:
    """Returns the settings as lines of a config file, joined by "; "."""
    lines = [
      f"config.{key} = {_spelled(value)}"
      for key, value in self.settings.items()
    ]
    return "; ".join(lines) or "unchanged"


def _spelled(value) -> str:
  if isinstance(value, dict):
    return f"dict({', '.join(f'{k}={v}' for k, v in value.items())})"
  return repr(value)


def turned(config: Mapping[str, Any], knob: Knob) -> dict[str, Any]:
  """Returns a copy of a complete config with the knob's settings."""
  config = {k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
  for key, value in knob.settings.items():
    section, _, name = key.partition(".")
    if name:
      config[section][name] = value
    else:
      config[section] = value
  return config


def knobs(config: Mapping[str, Any], devices: int) -> list[Knob]:
  """Returns knobs that may save memory: each one, then all combined."""
  found = []
  model, learner = config["model"], config["learner"]
  if "remat" in _arguments("models", model) and model.get("remat") != "full":
    found.append(Knob({"model.remat": "full"}))
  batch = batch_spec.of_config(config).batch_size
  if "microbatches" in _arguments("train.learners", learner):
    now = learner.get("microbatches", 1)
    more = [n for n in MICROBATCHES if n > now and batch % (n * devices) == 0]
    found += [Knob({"learner.microbatches": n}) for n in more[:2]]
  if config["sharding"] != [[".*", "fsdp"]]:
    found.append(Knob({"sharding": [[".*", "fsdp"]]}))
  if config["mesh"] != {"fsdp": -1}:
    whole = {"mesh": {"fsdp": -1}, "sharding": [[".*", "fsdp"]]}
    found.append(Knob(whole))
  task = _arguments("train.tasks", config["task"])
  if "loss_chunk" in task and not config["task"].get("loss_chunk"):
    found.append(Knob({"task.loss_chunk": 512}))
  if not config["optimizer"].get("state_dtype"):
    found.append(Knob({"optimizer.state_dtype": "bfloat16"}))
  together: dict[str, Any] = {}
  for knob in found:
    together.update(knob.settings)
  return [*found, Knob(together)] if len(found) > 1 else found


def _remembers(parts, where) -> summary.Figures:
  if where.compiles:
    found = compile_ahead.program(parts, _limit(where))
    return {"fits": found.fits, "memory": found.memory._asdict()}
  kept = analytic.residuals(parts)
  found = analytic.estimate(parts, kept)
  memory = analytic.memory(found, _limit(where))
  return {"fits": memory.peak <= memory.limit, "memory": memory._asdict()}


def _arguments(package: str, section: Mapping[str, Any]) -> set[str]:
  function = names.find(package, section["name"], f"config.{package}.name")
  return set(inspect.signature(function).parameters)


def tried(
  config: Mapping[str, Any], where: topology.Topology, say: Callable
) -> list[summary.Figures]:
  """Measures the effect of each knob on a config that does not fit.

  Returns:
    One row per knob: {"knob", "fits", "memory"}, or {"knob", "error"} if the
    settings are not valid.
  """
  config = assembly.complete(config)
  rows = []
  for knob in knobs(config, len(where.devices)):
    say(f"trying {knob.spelled()}")
    row: summary.Figures = {"knob": knob.spelled()}
    try:
      parts = compile_ahead.experiment(turned(config, knob), where.devices)
      row.update(_remembers(parts, where))
    except UserError as error:
      row["error"] = str(error)
    rows.append(row)
  return rows


def meshes(config: Mapping[str, Any], where: topology.Topology) -> list[dict]:
  """Returns candidate meshes whose axes divide what they partition."""
  devices = len(where.devices)
  slices = max(1, devices // where.host_size) if where.torus else 1
  inner = devices // slices
  model = config["model"]
  layouts: list[dict[str, int]] = [{"fsdp": inner}, {"data": inner}]
  powers = [n for n in (2, 4, 8) if inner % n == 0 and inner > n]
  layouts += [{"data": n, "fsdp": inner // n} for n in powers]
  heads = model.get("kv_heads") or model.get("heads") or 1
  layouts += [
    {"fsdp": inner // n, "tensor": n} for n in powers if heads % n == 0
  ]
  length = config["data"].get("seq_len") or 0
  if length >= 8192:
    layouts += [{"fsdp": inner // n, "context": n} for n in powers]
  experts = model.get("experts")
  if experts:
    layouts += [
      {"fsdp": inner // n, "expert": n} for n in powers if experts % n == 0
    ]
  outer = {"slice": slices} if slices > 1 else {}
  return [{**outer, **layout} for layout in layouts]


def candidates(
  config: Mapping[str, Any], where: topology.Topology
) -> Iterator[Knob]:
  """Yields the product of meshes, remat policies and microbatch counts."""
  batch_size = batch_spec.of_config(config).batch_size
  policies: list[Any] = [None]
  if "remat" in _arguments("models", config["model"]):
    policies = list(REMATS)
  parts: list[Any] = [None]
  if "microbatches" in _arguments("train.learners", config["learner"]):
    parts = list(MICROBATCHES)
  for mesh, remat, microbatches in itertools.product(
    meshes(config, where), policies, parts
  ):
    batch_parts = math.prod(
      n for axis, n in mesh.items() if axis in sharding.BATCH_AXES
    )
    if batch_size % (batch_parts * (microbatches or 1)):
      continue
    settings: dict[str, Any] = {"mesh": mesh, "sharding": [[".*", "fsdp"]]}
    if remat is not None:
      settings["model.remat"] = remat
    if microbatches is not None:
      settings["learner.microbatches"] = microbatches
    changed = {k: v for k, v in settings.items() if _now(config, k) != v}
    yield Knob(changed)


def _now(config: Mapping[str, Any], key: str) -> Any:
  """Returns a complete config's current value of "section.name"."""
  section, _, name = key.partition(".")
  if not name:
    return config[section]
  return config[section].get(name, 1 if name == "microbatches" else None)


def search(
  config: Mapping[str, Any],
  where: topology.Topology,
  most: int,
  say: Callable,
) -> list[summary.Figures]:
  """Ranks settings by step time, with those that fit first.

  Every candidate is estimated by formula. If a compiler is available, the best
  `most` candidates are compiled, and their figures come from the compiler.

  Args:
    config: the experiment.
    where: the topology.
    most: the maximum number of rows.
    say: receives a line of progress.

  Returns:
    Rows {"knob", "by", "fits", "peak", "step_seconds", "limit", "mfu"}.
  """
  config = assembly.complete(config)
  rows, known = [], {}
  for knob in candidates(config, where):
    try:
      rows.append((knob, *_judged(turned(config, knob), where, known)))
    except UserError as error:
      say(f"{knob.spelled()}: {error}")
  # If the state and the batch alone exceed the memory, compiling cannot help.
  rows = [row for row in rows if row[2]["memory"]["arguments"] < _limit(where)]
  rows.sort(key=lambda row: (not row[2]["fits"], _seconds(row[2])))
  say(f"estimated {len(rows)} settings by formula")
  chosen = [(knob, figures) for knob, _, figures in rows[:most]]
  if where.compiles:
    chosen = []
    for index, (knob, parts, _) in enumerate(rows[:most]):
      say(f"compiling {index + 1} of {min(most, len(rows))}: {knob.spelled()}")
      counted = known[parts.config["model"].get("remat")][0]
      try:
        chosen.append((knob, summary.measure(parts, where, counted)))
      except UserError as error:
        say(f"{knob.spelled()}: {error}")
  chosen.sort(key=lambda row: (not row[1]["fits"], _seconds(row[1])))
  return [_row(knob, figures) for knob, figures in chosen]


def _judged(config, where, known):
  """Returns (parts, figures by formula); `known` caches traces per policy."""
  parts = compile_ahead.experiment(config, where.devices)
  policy = config["model"].get("remat")
  if policy not in known:
    known[policy] = (
      summary.operations(parts),
      analytic.residuals(parts),
    )
  counted, kept = known[policy]
  return parts, summary.by_formula(parts, where, counted, kept)


def _limit(where) -> float:
  return where.chip.hbm_bytes if where.chip else math.inf


def _seconds(figures) -> float:
  bound = figures["roofline"]
  return bound["step_seconds"] if bound else math.inf


def _row(knob: Knob, figures) -> summary.Figures:
  bound = figures["roofline"] or {}
  return {
    "knob": knob.spelled(),
    "by": figures["by"],
    "fits": figures["fits"],
    "peak": figures["memory"]["peak"],
    "step_seconds": bound.get("step_seconds"),
    "limit": bound.get("limit"),
    "mfu": bound.get("mfu"),
  }
