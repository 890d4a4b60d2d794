"""Self-distillation: a student follows the average of itself (DINO)."""

import jax
import jax.numpy as jnp

from models.vision.projected import Projected
from train import types
from train.objectives import self_distillation as objective
from train.tasks.parts import networks

# What the axes of the fields mean; see common/leaf.py.
AXES = {"image": ("height", "width", "channel")}
TEACHER = "teacher"  # of Variables.frozen
CENTER = "center"  # of Variables.model_state


def self_distillation(
  model: Projected,
  *,
  crops: int = 0,
  student_temperature: float = 0.1,
  teacher_temperature: float = 0.04,
  first_temperature: float | None = None,
  warmup_steps: int = 0,
  center_momentum: float = 0.9,
) -> types.Task:
  """DINO (Caron et al., 2021, arXiv:2104.14294), with multi-crop.

  The teacher is the moving average of the student that config.learner.wrap =
  [dict(name="ema", lend="teacher", …)] lends to the loss, and that is
  evaluated. It sees view_1 and view_2; the student sees these and the crops.
  With batch norm, both use the statistics of the batch in training.

  Batch: view_1 and view_2 [B, H, W, C] float, crop_1, crop_2, … [B, h, w, C],
  as the op `views` makes them; image [B, H, W, C], for the predictions; mask
  [B].

  Metrics: teacher_entropy, in nats, which is 0 or the logarithm of the number
  of prototypes after a collapse.

  Predictions: "features" [B, F] of the backbone; "embeddings" [B, K], of
  length 1.

  Args:
    model: a backbone and a head with prototypes.
    crops: the number of crops.
    student_temperature: divides the student's outputs.
    teacher_temperature: divides the teacher's centered outputs.
    first_temperature: of the teacher at the first step, from which it changes
      linearly over `warmup_steps`; None for no change.
    warmup_steps: the number of steps of this change.
    center_momentum: the share of the center that a step keeps.

  Raises:
    ValueError: a temperature is not above 0. The loss raises it in training
      if there is no teacher.
  """
  first = (
    teacher_temperature if first_temperature is None else first_temperature
  )
  if not min(student_temperature, teacher_temperature, first) > 0:
    raise ValueError("a temperature is not above 0")
  parts = networks.of(model)
  small = [f"crop_{i}" for i in range(1, crops + 1)]

  def outputs(variables, batch, fields, **how):
    """(outputs of several fields of equal size [V, B, K], model_state)."""
    views = jnp.concatenate([batch[field] for field in fields])
    z, state = networks.through(parts, variables, views, **how)
    return z.reshape(len(fields), -1, z.shape[-1]), state

  def teacher_of(variables, train):
    lent = (variables.frozen or {}).get(TEACHER)
    if lent is None and train:
      raise ValueError(
        "there is no teacher: config.learner.wrap lacks"
        ' dict(name="ema", lend="teacher")'
      )
    return variables if lent is None else variables._replace(params=lent)

  def loss(variables, batch, context):
    rng, crop_rng, teacher_rng = jax.random.split(context.rng, 3)
    how = {"rng": rng, "train": context.train}
    large = ("view_1", "view_2")
    teacher = teacher_of(variables, context.train)
    teacher_UBK, _ = outputs(
      teacher, batch, large, **how | {"rng": teacher_rng}
    )
    student_VBK, state = outputs(variables, batch, large, **how)
    if small:
      how["rng"] = crop_rng
      now = variables._replace(model_state=state)
      crops_VBK, state = outputs(now, batch, small, **how)
      student_VBK = jnp.concatenate([student_VBK, crops_VBK])
    done = jnp.minimum(context.step / max(warmup_steps, 1), 1.0)
    temperature = first + (teacher_temperature - first) * done
    center_K, mask_B = state[CENTER], batch["mask"]
    nats_B = objective.self_distillation(
      student_VBK,
      teacher_UBK,
      center_K,
      student_temperature=student_temperature,
      teacher_temperature=temperature,
    )
    spread_B = objective.entropy(teacher_UBK, center_K, temperature)
    if context.train:
      state = state | {
        CENTER: objective.moved_center(
          center_K, teacher_UBK, mask_B, center_momentum
        )
      }
    found = {"teacher_entropy": types.mean_of(spread_B, mask_B)}
    return types.mean_of(nats_B, mask_B), types.Aux(state, found)

  center = {CENTER: jnp.zeros(model.out)}
  init = networks.init_of(parts, model_state=center)
  return types.Task(init, {"loss": loss}, networks.predictions(model))
