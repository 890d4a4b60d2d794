"""Compiles a training step for machines that are not there."""

import math
import re
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from common.errors import UserError
from train import assembly, loop, sharding
from train.planning import batch_spec

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"


class Memory(NamedTuple):
  """Bytes a device, as the compiler lays them out; None where it did not say.

  arguments: state and batch.
  outputs: the new state and the metrics; `aliased` of them live where the
    donated arguments did.
  temporaries: activations, gradients, buffers of collectives.
  peak: the most that is alive at a time; the sum where that is not told.
  limit: what the compiler grants of the device's memory.
  """

  arguments: int | None
  outputs: int | None
  aliased: int | None
  temporaries: int | None
  peak: int
  limit: int | None


class Tensor(NamedTuple):
  """A large allocation: its shape and the operation that makes it."""

  nbytes: int
  shape: str
  operation: str


class Compiled(NamedTuple):
  """What compiling gave.

  fits: False where the memory does not suffice; then there is no program.
  largest: the largest allocations where it does not fit.
  text: of the program, for train.planning.hlo; "" where there is none.
  flops: a device's, as XLA counts: a loop's body once.
  seconds: that it took.
  """

  fits: bool
  memory: Memory
  largest: list[Tensor]
  text: str
  flops: float
  seconds: float


def experiment(config: dict[str, Any], devices) -> assembly.Experiment:
  """The Experiment of a complete config on those devices, without its data.

  Raises:
    UserError: the config is wrong, or does not suit the number of devices.
  """
  config = {**config, "model": dict(config["model"])}
  try:
    mesh = sharding.make_mesh(config["mesh"], devices)
  except NotImplementedError as error:  # JAX's word for a torus it cannot cut
    raise UserError(f"config.mesh: {_line(error)}") from error
  parts = sharding.batch_parts(mesh)
  batch_size = config["batch_size"]
  if isinstance(batch_size, int) and batch_size % parts:
    shape = ", ".join(f"{k}={v}" for k, v in mesh.shape.items())
    raise UserError(
      f"config.batch_size={batch_size} cannot be divided over the {parts} parts"
      f" of the mesh ({shape})"
    )
  data = batch_spec.of_config(config, parts)
  vocabulary = batch_spec.vocabulary(config)
  if vocabulary is not None:
    config["model"].setdefault("vocab_size", vocabulary)
  return assembly.assemble(config, mesh, data)


def program(parts: assembly.Experiment, limit: float | None = None) -> Compiled:
  """Compiles the step that the loop runs.

  Args:
    parts: of `experiment`.
    limit: the device's memory, where the compiler does not tell it.

  Raises:
    UserError: the step cannot be traced or compiled; one line.
  """
  start = time.perf_counter()
  init, state = assembly.state_of(parts)
  batch = _batch(parts)
  lowered = _lowered(parts, init, state, batch)
  try:
    compiled = lowered.compile()
  except Exception as error:  # XLA's own kinds, which differ by version
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise UserError(f"the compiler refuses: {_line(error)}") from error
    memory, largest = exhausted(str(error), held((state, batch)))
    seconds = time.perf_counter() - start
    return Compiled(False, memory, largest, "", 0.0, seconds)
  found = compiled.memory_analysis()
  arguments = found.argument_size_in_bytes
  outputs, aliased = found.output_size_in_bytes, found.alias_size_in_bytes
  temporaries = found.temp_size_in_bytes
  peak = arguments + outputs - aliased + temporaries
  if parts.mesh.devices.flat[0].platform == "tpu":
    peak = found.peak_memory_in_bytes  # not all temporaries live at a time
  granted = int(limit) if limit else None
  memory = Memory(arguments, outputs, aliased, temporaries, peak, granted)
  costs = compiled.cost_analysis() or {}
  return Compiled(
    fits=True,
    memory=memory,
    largest=[],
    text=compiled.as_text(),
    flops=float(costs.get("flops", 0.0)),
    seconds=time.perf_counter() - start,
  )


def held(tree: Any) -> int:
  """Bytes a device holds of a tree of ShapeDtypeStructs with shardings."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
    if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
  )


def _batch(parts: assembly.Experiment) -> dict[str, jax.ShapeDtypeStruct]:
  return {
    name: jax.ShapeDtypeStruct(
      (parts.data.batch_size, *shape),
      np.dtype(dtype),
      sharding=sharding.batch_sharding(parts.mesh, 1 + len(shape)),
    )
    for name, (shape, dtype) in parts.data.spec.items()
  }


def _lowered(parts: assembly.Experiment, init, state, batch):
  """The loop's jitted step, traced for the mesh of `parts`."""
  rng = jax.eval_shape(lambda: jax.random.key(0))
  run = loop.Run(
    learner=parts.learner,
    init=init,
    abstract_state=state,
    batches=parts.data.batches,
    evaluations={},
    total_steps=0,
    units_per_step={},
    rng=rng,
  )
  try:
    return loop.jit_step(run).lower(state, batch, rng)
  except UserError:
    raise
  except (ValueError, TypeError) as error:
    raise UserError(f"the step cannot be traced: {_line(error)}") from error


def exhausted(message: str, arguments: int) -> tuple[Memory, list[Tensor]]:
  """What a RESOURCE_EXHAUSTED tells, as figures; the largest tensors first.

  The TPU compiler words it in two ways. Where temporaries alone overfill the
  memory it names their sum; else it lists what is allocated, too.

  Args:
    message: of the error.
    arguments: bytes a device, which the short message leaves out.
  """
  short = re.search(
    rf"HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)", message
  )
  long = re.search(rf"Used {_SIZE} of {_SIZE} hbm", message)
  limit = temporaries = None
  peak = arguments
  if short:
    temporaries, limit = (
      _bytes(*short.groups()[:2]),
      _bytes(*short.groups()[2:]),
    )
    peak = arguments + temporaries
  elif long:
    peak, limit = _bytes(*long.groups()[:2]), _bytes(*long.groups()[2:])
    temporaries = peak - arguments
  memory = Memory(arguments, arguments, arguments, temporaries, peak, limit)
  largest = []
  for item in re.split(r"\n\s*\d+\. Size: ", message)[1:]:
    size = re.match(_SIZE, item)
    shape = re.search(r"Shape: ([a-z]\w*\[[\d,]*\])", item)
    operation = re.search(r'op_name="([^"]*)"', item)
    largest.append(
      Tensor(
        _bytes(*size.groups()) if size else 0,
        shape[1] if shape else "",
        operation[1] if operation else "",
      )
    )
  return memory, largest


def _bytes(number: str, unit: str) -> int:
  return int(float(number) * _UNITS[unit])


def _line(error: Exception) -> str:
  """The first line of an error that says something."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return lines[0][:300] if lines else type(error).__name__
