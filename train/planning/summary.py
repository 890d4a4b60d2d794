"""The figures of a plan, as one dict for the tables and for JSON."""

from collections.abc import Mapping
from typing import Any

from common import leaf
from train import assembly, sharding
from train.measuring import flops
from train.planning import (
  analytic,
  batch_spec,
  collectives,
  compile_ahead,
  roofline,
  topology,
)

Figures = dict[str, Any]


def plan(
  config: Mapping[str, Any],
  where: topology.Topology,
  *,
  watts: float | None = None,
  price: float | None = None,
) -> Figures:
  """Returns all figures of a config's run on a topology.

  Args:
    config: the experiment.
    where: the result of topology.find.
    watts: the power of a chip; by default that of hardware.CHIPS.
    price: the price of a chip-hour, or None.

  Raises:
    UserError: the config is invalid or does not suit the topology.
  """
  complete = assembly.complete(config)
  parts = compile_ahead.experiment(complete, where.devices)
  counted = operations(parts)
  found = measure(parts, where, counted)
  figures = {
    "topology": where.name,
    "devices": len(where.devices),
    "chip": where.chip and where.chip.name,
    "mesh": dict(parts.mesh.shape),
    "bubble": sharding.bubble(complete, parts.mesh),
    "batch_size": parts.data.batch_size,
    "programs": batch_spec.programs(complete),
    "length": max(parts.data.lengths, default=parts.length),
    "parameters": _parameters(parts),
    **found,
  }
  if found["roofline"] is not None:
    watts = watts or where.chip.watts
    run = roofline.whole_run(
      found["roofline"]["step_seconds"],
      complete["total_steps"],
      len(where.devices),
      watts,
      price,
    )
    figures["run"] = {
      "steps": complete["total_steps"],
      **run,
      "watts": watts,
      "watts_are": _watts_are(watts, where.chip),
    }
  return figures


def _watts_are(watts: float, chip) -> str:
  if watts != chip.watts:
    return "given"
  return "published" if chip.watts_published else "an estimate"


def operations(parts: assembly.Experiment) -> dict[str, float | str]:
  """Returns the FLOPs of a step of the global batch: model and executed."""
  model = flops.step(parts)
  once = flops.traced(parts)
  again = flops.traced(parts, recomputed=True)
  formula = getattr(parts.model, "flops", None) is not None
  return {
    "model": model,
    "executed": model * again / once if once else model,
    "model_by": (
      "the model's formula; causal attention counts as half of full attention"
      if formula and parts.length
      else "a trace of matrix products and convolutions"
    ),
  }


def measure(
  parts: assembly.Experiment,
  where: topology.Topology,
  counted: Figures,
) -> Figures:
  """Returns a step's memory, collectives and roofline, compiled if possible."""
  if not where.compiles:
    return by_formula(parts, where, counted, analytic.residuals(parts))
  compiled = compile_ahead.program(parts, _limit(where))
  sent = moved = None
  if compiled.fits:
    sent = collectives.of_program(compiled.text, dict(parts.mesh.shape))
    moved = roofline.hbm_bytes(compiled.text)
  largest = compiled.largest
  if not compiled.fits and not largest:
    kept = analytic.residuals(parts)
    largest = analytic.largest(parts, kept, 8)
  compilers = compiled.flops * len(where.devices) if compiled.fits else None
  return {
    "by": "the compiler",
    "seconds": compiled.seconds,
    "fits": compiled.fits,
    "memory": compiled.memory._asdict(),
    "largest": [tensor._asdict() for tensor in largest],
    "flops": {**counted, "compiler": compilers},
    "collectives": None if sent is None else collectives.by_axis(sent),
    "uncounted": [],
    "roofline": _roofline(parts, where, counted, sent, moved),
  }


def by_formula(
  parts: assembly.Experiment,
  where: topology.Topology,
  counted: Figures,
  kept: list[Any],
) -> Figures:
  """Returns the figures of `measure` without a compiler.

  Args:
    parts: the result of compile_ahead.experiment.
    where: the topology.
    counted: the result of `operations`.
    kept: the result of analytic.residuals.
  """
  found = analytic.estimate(parts, kept)
  memory = analytic.memory(found, _limit(where))
  fits = memory.limit is None or memory.peak <= memory.limit
  largest = [] if fits else analytic.largest(parts, kept, 8)
  return {
    "by": "formula",
    "seconds": 0.0,
    "fits": fits,
    "memory": memory._asdict(),
    "largest": [tensor._asdict() for tensor in largest],
    "flops": {**counted, "compiler": None},
    "collectives": collectives.by_axis(found.collectives),
    "uncounted": found.uncounted,
    "roofline": _roofline(
      parts, where, counted, found.collectives, found.moved
    ),
  }


def _limit(where: topology.Topology) -> float | None:
  return where.chip and where.chip.hbm_bytes


def _parameters(parts: assembly.Experiment) -> int:
  _, state = assembly.state_of(parts)
  return sharding.count(state.variables.params)


def _roofline(parts, where, counted, sent, moved) -> Figures | None:
  if where.chip is None or sent is None:
    return None
  chips = len(where.devices)
  model = parts.config["model"]
  network = roofline.interconnect(
    sent,
    where.chip,
    list(parts.mesh.devices.flat),
    where.host_size,
    where.torus,
  )
  found = roofline.bound(
    where.chip,
    chips,
    roofline.dtype_of(model.get("matmul") or model.get("dtype")),
    counted["model"],
    counted["executed"],
    moved,
    network,
  )
  figures = {
    "compute_seconds": found.compute,
    "hbm_seconds": found.hbm,
    "hbm_bytes": moved,
    "interconnect_seconds": found.interconnect,
    "step_seconds": found.step,
    "limit": found.limit,
    "mfu": found.mfu,
    "examples_per_second": parts.data.batch_size / found.step,
  }
  for unit, each in leaf.units(parts.data.spec).items():
    figures[f"{unit}_per_second"] = parts.data.batch_size * each / found.step
  return figures
