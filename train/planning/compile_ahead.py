"""Compiles a training step ahead of time for machines that are not present."""

import math
import re
import time
from typing import Any, NamedTuple

import jax

from common.errors import UserError
from train import assembly, loop, sharding, trained
from train.planning import batch_spec

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"


class Memory(NamedTuple):
  """Bytes per device, as allocated by the compiler; None if not reported.

  arguments: the state and the batch.
  outputs: the new state and the metrics.
  aliased: the part of the outputs that reuses the donated arguments' memory.
  temporaries: activations, gradients and the buffers of collectives.
  peak: the maximum that is live at one time, or the sum of all if the compiler
    does not report the maximum.
  limit: the part of the device's memory that the compiler may use.
  """

  arguments: int | None
  outputs: int | None
  aliased: int | None
  temporaries: int | None
  peak: int
  limit: int | None


class Tensor(NamedTuple):
  """A large allocation: its shape and the operation that computes it."""

  nbytes: int
  shape: str
  operation: str


class Compiled(NamedTuple):
  """The result of a compilation.

  fits: False if the memory does not suffice; then there is no program.
  memory: the memory of a device.
  largest: the largest allocations, if the program does not fit.
  text: the program's text, for train.planning.hlo; "" if there is no program.
  flops: the FLOPs of a device by XLA's count, where a loop's body counts once.
  seconds: the time of the compilation.
  """

  fits: bool
  memory: Memory
  largest: list[Tensor]
  text: str
  flops: float
  seconds: float


def experiment(config: dict[str, Any], devices) -> assembly.Experiment:
  """Returns the Experiment of a complete config on the devices, without data.

  Raises:
    UserError: the config is invalid or does not suit the number of devices.
  """
  config = {**config, "model": dict(config["model"])}
  try:
    mesh = sharding.make_mesh(config["mesh"], devices)
  except NotImplementedError as error:  # JAX cannot split the torus this way
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
  sharding.check_lengths(data.lengths, mesh, "config.data.buckets")
  vocabulary = batch_spec.vocabulary(config)
  if vocabulary is not None:
    config["model"].setdefault("vocab_size", vocabulary)
  return assembly.assemble(config, mesh, data, trained.task_and_variables)


def program(parts: assembly.Experiment, limit: float | None = None) -> Compiled:
  """Compiles the training step.

  Args:
    parts: the result of `experiment`.
    limit: the device's memory in bytes, if known.

  Raises:
    UserError: the step cannot be traced or compiled.
  """
  start = time.perf_counter()
  init, state = assembly.state_of(parts)
  batch = _batch(parts)
  lowered = _lowered(parts, init, state, batch)
  try:
    compiled = lowered.compile()
  except Exception as error:  # XLA's types of error differ between versions
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise UserError(f"compilation failed: {_line(error)}") from error
    memory, largest = exhausted(str(error), held((state, batch)))
    seconds = time.perf_counter() - start
    return Compiled(False, memory, largest, "", 0.0, seconds)
  found = compiled.memory_analysis()
  arguments = found.argument_size_in_bytes
  outputs, aliased = found.output_size_in_bytes, found.alias_size_in_bytes
  temporaries = found.temp_size_in_bytes
  peak = arguments + outputs - aliased + temporaries
  if parts.mesh.devices.flat[0].platform == "tpu":
    peak = found.peak_memory_in_bytes  # temporaries are not all live at once
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
  """Returns a device's bytes of a tree of ShapeDtypeStructs with shardings."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
    if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
  )


def _batch(parts: assembly.Experiment) -> dict[str, jax.ShapeDtypeStruct]:
  return {
    name: jax.ShapeDtypeStruct(
      (parts.data.batch_size, *leaf.shape),
      leaf.dtype,
      sharding=sharding.batch_sharding(parts.mesh, leaf),
    )
    for name, leaf in parts.data.spec.items()
  }


def _lowered(parts: assembly.Experiment, init, state, batch):
  """Returns the loop's jitted step, traced for the mesh of `parts`."""
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
  """Parses a RESOURCE_EXHAUSTED error into (Memory, largest tensors first).

  The TPU compiler has two forms of this message. The short one, used if the
  temporaries alone exceed the memory, gives only their sum; the long one also
  lists the allocations.

  Args:
    message: the error's message.
    arguments: bytes of the arguments per device, which the short message omits.
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
  """Returns the first non-empty line of an error's message."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return lines[0][:300] if lines else type(error).__name__
