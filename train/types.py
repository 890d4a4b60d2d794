"""The vocabulary of training: what a task, a learner and a state are.

Every name here is a plain tuple of arrays or of pure functions.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from common.errors import UserError
from common.leaf import Leaf

# Leaves [B, ...]. "mask", [B] or [B, T], is 1 on what is real and 0 on padding.
Batch = Mapping[str, jax.Array]
PyTree = Any


class Mean(NamedTuple):
  """A weighted mean, kept as two sums so that merging means is exact.

  total: float32 scalar (or array), the sum of weight * value.
  weight: float32 of the same shape, the sum of the weights.
  """

  total: jax.Array
  weight: jax.Array

  def __add__(self, other: tuple[Any, ...], /) -> "Mean":
    total, weight = other
    return Mean(self.total + total, self.weight + weight)

  def value(self) -> jax.Array:
    """total / weight; 0 where the weight is 0."""
    return self.total / jnp.where(self.weight == 0, 1, self.weight)


def mean_of(values: jax.Array, mask: jax.Array | None = None) -> Mean:
  """The masked Mean of `values`; `mask` has their shape or leads it."""
  values = values.astype(jnp.float32)
  if mask is None:
    mask = jnp.ones(values.shape, jnp.float32)
  extra = values.ndim - mask.ndim
  weights = jnp.broadcast_to(
    mask.astype(jnp.float32).reshape(mask.shape + (1,) * extra), values.shape
  )
  # `where` rather than a product: padding may be NaN, and 0 * NaN is NaN.
  total = jnp.sum(jnp.where(weights > 0, values * weights, 0.0))
  return Mean(total, jnp.sum(weights))


class Variables(NamedTuple):
  """The arrays that a forward pass reads.

  params: nested dicts of arrays, differentiated.
  model_state: written by the forward pass (batch statistics).
  frozen: read only (a teacher, the base that LoRA adapts).
  """

  params: PyTree
  model_state: PyTree
  frozen: PyTree = ()


class Aux(NamedTuple):
  """The second result of a loss, next to its Mean."""

  model_state: PyTree
  metrics: dict[str, Mean]


class State(NamedTuple):
  """Everything that is carried from step to step and saved in a checkpoint.

  step: int32 scalar, the number of updates done.
  extra: state of the learner (a moving average, an environment, …).
  """

  step: jax.Array
  variables: Variables
  opt_state: PyTree
  extra: PyTree


class Context(NamedTuple):
  """What a loss may depend on beside the arrays.

  rng: a random key.
  step: int32 scalar, the number of updates done, for schedules of a loss.
  train: whether the loss is differentiated, a Python bool, also within jit.
  """

  rng: jax.Array
  step: jax.Array
  train: bool


# As static data of the tree, `train` is never traced.
jax.tree_util.register_pytree_node(
  Context,
  lambda context: ((context.rng, context.step), context.train),
  lambda train, arrays: Context(*arrays, train),
)

# (variables, batch, context) -> (Mean, Aux)
Loss = Callable[[Variables, Batch, Context], tuple[Mean, Aux]]
# (variables, batch, rng) -> pytree of arrays [B, ...]
Predict = Callable[[Variables, Batch, jax.Array], PyTree]


class Task(NamedTuple):
  """What is learned.

  init: (rng, batch) -> Variables; traced by eval_shape, so it must not depend
    on values.
  losses: one per player. By default, a player's name is also a top-level key of
    params, and its loss is differentiated with respect to those only.
  predict: named predictions; with the losses, all that evaluators use.
  coupled: whether a loss couples the examples of a batch, as contrastive losses
    do, so that the losses of its parts do not add up to that of the whole.
  name: the file that config.task names, for messages.
  given: () -> entries of Variables.frozen that another run gives, such as a
    teacher. `init` makes them of zeros, since arrays that it closed over would
    become constants of its program; they are loaded when a run begins.
  """

  init: Callable[[jax.Array, Batch], Variables]
  losses: Mapping[str, Loss]
  predict: Mapping[str, Predict]
  coupled: bool = False
  name: str = ""
  given: Callable[[], Mapping[str, PyTree]] = dict


def init_of(model: Any) -> Callable[[jax.Array, Batch], Variables]:
  """Returns the `init` of a task whose variables are those of one model."""

  def init(rng, batch):
    del batch
    return Variables(*model.init(rng))

  return init


def _none(params: PyTree) -> PyTree:
  return jax.tree.map(lambda _: False, params)


class Learner(NamedTuple):
  """How it is learned.

  init: (rng, batch) -> State
  step: (state, batch, rng) -> (state, {name: Mean}); the loop jits it and
    donates the state.
  variables: (state) -> the Variables to evaluate and export, for example a
    moving average.
  gradients: (state, batch, rng) -> the mean gradients that `step` computes from
    the same arguments, for histograms and wrappers; None if the learner does
    not offer it. If it does, `step` also takes the keyword `at`: params at
    which gradients are computed, instead of those that are updated.
  note: a line to print at the start of a run, or "".
  rows: {path in the State: axis}. Arrays at or below a path, such as
    "extra/environments", have rows along their first axis, which is sharded
    over the named axis of the mesh, or, for "batch", like the rows of a batch.
  loss_batch: (batch) -> the batch that the losses of the task are given, for
    estimates of a step's memory, which call it with ShapeDtypeStructs; None if
    it is the batch of the data.
  loss_variables: (variables of Task.init) -> those that the losses of the task
    are given, for the same estimates; None if they are the same.
  frozen: that of its Optimizer.
  """

  init: Callable[[jax.Array, Batch], State]
  step: Callable[..., tuple[State, dict[str, Mean]]]
  variables: Callable[[State], Variables]
  gradients: Callable[[State, Batch, jax.Array], PyTree] | None = None
  note: str = ""
  rows: Mapping[str, str] = MappingProxyType({})
  loss_batch: Callable[[Batch], Batch] | None = None
  loss_variables: Callable[[Variables], Variables] | None = None
  frozen: Callable[[PyTree], PyTree] = _none


class Environment(NamedTuple):
  """A world that an agent acts in, as pure functions of one such world.

  reset: (rng) -> (state, observation), the beginning of an episode.
  step: (state, action, rng) -> (state, observation, reward, terminated,
    truncated). The state is a pytree of arrays without random keys, the reward
    a float32 scalar and the last two are bool scalars: whether the episode has
    ended by itself, so that no reward follows, and whether it is cut off here,
    so that rewards would follow.
  observation: the Leaf of an observation.
  actions: the number of discrete actions, which are int32 scalars from 0 on;
    None if actions are vectors of real numbers.
  most_steps: the number of steps after which every episode has ended.
  bounds: (lowest, highest) of the numbers of an action, float32 [A], to which
    `step` clips them; None if actions are discrete.
  """

  reset: Callable[[jax.Array], tuple[PyTree, jax.Array]]
  step: Callable[..., tuple[PyTree, jax.Array, jax.Array, jax.Array, jax.Array]]
  observation: Leaf
  actions: int | None
  most_steps: int
  bounds: tuple[jax.Array, jax.Array] | None = None


def split(batch: Batch, parts: int) -> Batch:
  """[B, ...] -> [parts, B / parts, ...]; each part has rows of every device.

  Row i goes to part i mod `parts`, so that a batch that is sharded in blocks
  over devices is split without communication.
  """

  def one(x):
    if x.shape[0] % parts:
      raise UserError(
        f"a batch of {x.shape[0]} cannot be split into {parts} equal parts"
      )
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

  return jax.tree.map(one, batch)


class Optimizer(NamedTuple):
  """An Optax transformation and further functions that learners need.

  init: (params) -> opt_state
  update: (grads, opt_state, params, value) -> (updates, opt_state); `value`
    is the loss, for schedules that depend on it.
  learning_rate: (opt_state) -> float32 scalar, of the next update.
  eval_params: (opt_state, params) -> the params to evaluate; differs from
    params for schedule-free methods.
  frozen: (params) -> the same tree of bools, whether a parameter is never
    updated, so that copies of it need not be kept.
  """

  init: Callable[[PyTree], PyTree]
  update: Callable[..., tuple[PyTree, PyTree]]
  learning_rate: Callable[[PyTree], jax.Array]
  eval_params: Callable[[PyTree, PyTree], PyTree]
  frozen: Callable[[PyTree], PyTree] = _none


def _read_nothing(**settings: Any) -> Callable[[], Any]:
  raise UserError("no other data can be read here")


def _show_nothing(step: int, name: str, kind: str, value: Any) -> None:
  pass


# (variables, step) -> {name: float}: one full pass, the same on every host.
Evaluator = Callable[[Variables, int], dict[str, float]]


class Measuring(NamedTuple):
  """An Evaluator that states in advance which metrics it returns.

  evaluate: the Evaluator.
  names: (Variables of ShapeDtypeStructs) -> the names of its metrics.
  """

  evaluate: Evaluator
  names: Callable[[Variables], Iterable[str]]

  def __call__(self, variables: Variables, step: int) -> dict[str, float]:
    """Evaluates the variables."""
    return self.evaluate(variables, step)


class EvalContext(NamedTuple):
  """The arguments that an evaluator is built with.

  task: the run's Task.
  batches: () -> iterator over one full pass of sharded, padded batches.
  decode: token ids -> text, or None where the data is not text.
  encode: text -> token ids, after what begins a text; or None.
  num_classes: of the evaluated data, or None.
  workdir: where files are written, or None.
  key: the evaluator's key in config.evals.
  rng: a random key for this evaluator.
  load: (workdir) -> (Task, Variables) of another finished run.
  texts: (indices of a batch) -> {field: [values]} of the evaluated examples,
    see input_pipeline.rows.Rows; or None.
  class_names: in the order of the labels, or ().
  say: (line) -> None; prints above the progress bar.
  fetch: pytree of global arrays -> NumPy arrays, whole, on every host; all of
    them must call it.
  show: (step, name, kind, value) -> None; sends an "image", uint8 [H, W, 3], or
    a "text" to config.writers. Every process may call it.
  eos: the id that ends a document, or None.
  abstract_batch: a batch of ShapeDtypeStructs, of all hosts together.
  environment: the Environment that is evaluated, or None.
  read: (**settings) -> a function like `batches`, of the evaluated data with
    other settings, such as split="train".
  """

  task: Task
  batches: Callable[[], Any]
  decode: Callable[[Any], str] | None
  encode: Callable[[str], Iterable[int]] | None
  num_classes: int | None
  workdir: str | None
  key: str
  rng: jax.Array
  load: Callable[[str], tuple[Task, Variables]]
  say: Callable[[str], None]
  fetch: Callable[[PyTree], PyTree] = jax.device_get
  texts: Callable[[Any], dict[str, Any]] | None = None
  class_names: tuple[str, ...] = ()
  show: Callable[[int, str, str, Any], None] = _show_nothing
  eos: int | None = None
  abstract_batch: PyTree = None
  environment: Environment | None = None
  read: Callable[..., Callable[[], Any]] = _read_nothing
