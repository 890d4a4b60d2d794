"""Distillation: a task is also learned from the logits of a trained teacher."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from common.names import nearest
from train import types
from train.objectives import losses

KEY = "teacher"  # of Variables.frozen


def distill(
  task: types.Task,
  *,
  load: Callable[[str], tuple[types.Task, types.Variables]] | None,
  teacher: str,
  temperature: float = 2.0,
  alpha: float = 0.5,
  logits: str = "logits",
  student: str | None = None,
  hard: bool = False,
) -> types.Task:
  """Adds a divergence from the teacher's distribution (arXiv:1503.02531).

  In training the loss is alpha * T^2 * KL(teacher || student) + (1 - alpha) *
  own loss, where both distributions are softmax(logits / T) and the mean runs
  over the examples or positions of `mask`. In evaluation it is the task's own
  loss. The logits are those of the prediction: computed without dropout, and
  with the averaged statistics of batch normalization.

  The teacher's variables are in Variables.frozen["teacher"]. They are copied
  into the workdir once, at the start; a resumed run reads only the config of
  the teacher's workdir, and evaluating or serving the student does not need it.

  Metrics: distillation, the mean KL, or cross-entropy if `hard`; own_loss.

  Args:
    task: has one loss and the prediction `logits`.
    load: (workdir) -> (Task, Variables) of the teacher; None builds a task
      that can be evaluated but not trained.
    teacher: the workdir of a finished run on the same classes or tokens.
    temperature: T.
    alpha: the weight of the teacher, from 0 to 1.
    logits: the name of the prediction that gives the logits.
    student: that of the student's, if it has another name: "distilled", those
      of a distillation token (DeiT, arXiv:2012.12877).
    hard: replace T^2 * KL by the cross-entropy of the teacher's best class.

  Raises:
    ValueError: a value is out of range, or a task has several losses or no such
      prediction. The loss raises it if the logits have different shapes.
    UserError: the teacher's workdir cannot be read.
  """
  if not 0 < temperature < math.inf or not 0 <= alpha <= 1:
    raise ValueError(
      f"temperature={temperature} is not above 0, or alpha={alpha} not in 0…1"
    )
  if len(task.losses) != 1:
    raise ValueError(f"distill takes one loss, not {sorted(task.losses)}")
  own_logits, measure = student or logits, losses.distillation
  if hard:
    measure, temperature = losses.hard_distillation, 1.0
  _check_predicts(task, own_logits, "the task")
  ((name, own_loss),) = task.losses.items()

  teaching, shapes = None, {}
  if load is not None:
    # Not while `init` is traced. Only the shapes of its arrays are kept.
    teaching, known = load(teacher)
    shapes = jax.eval_shape(lambda x: x, known._asdict())
    del known
    _check_predicts(teaching, logits, f"the task of {teacher}")

  def init(rng, batch):
    variables = task.init(rng, batch)
    if teaching is None:
      return variables
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return variables._replace(frozen={**(variables.frozen or {}), KEY: blank})

  def given():
    own = task.given() or {}  # () where there is nothing
    return {**own, KEY: load(teacher)[1]._asdict()} if load else own

  def loss(variables, batch, context):
    mean, aux = own_loss(variables, batch, context)
    if not context.train:
      return mean, aux
    if teaching is None:
      raise ValueError("distill: no teacher was loaded, so nothing is learned")
    known = types.Variables(**variables.frozen[KEY])
    theirs = teaching.predict[logits](known, batch, context.rng)
    ours = task.predict[own_logits](variables, batch, context.rng)
    if theirs.shape != ours.shape:
      raise ValueError(
        f"distill: the logits are {list(ours.shape)}, and those of {teacher}"
        f" are {list(theirs.shape)}: both need the same classes or tokens"
      )
    found = measure(ours, theirs, temperature)
    divergence = types.mean_of(found, batch["mask"])
    metrics = {**aux.metrics, "own_loss": mean, "distillation": divergence}
    scale = alpha * temperature**2
    total = scale * divergence.total + (1 - alpha) * mean.total
    return mean._replace(total=total), aux._replace(metrics=metrics)

  return task._replace(init=init, losses={name: loss}, given=given)


def _check_predicts(task: types.Task, logits: str, whose: str) -> None:
  if logits not in task.predict:
    there = ", ".join(sorted(task.predict)) or "none"
    raise ValueError(
      f"distill: {whose} has no prediction {logits!r}"
      f"{nearest(logits, task.predict)} (there are: {there})"
    )
