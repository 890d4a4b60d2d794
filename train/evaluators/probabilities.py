"""The class probabilities of each example, written to a file."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from train import types


def probabilities(context: types.EvalContext) -> types.Evaluator:
  """Writes the class probabilities of a split, float32 [N, C] in its order.

  The file is WORKDIR/<key>/STEP.npy; a record that was skipped has a row of
  zeros. The metric `confidence` is the mean of the largest probability.

  Raises:
    ValueError: the task does not predict logits, or the run has no workdir.
  """
  if "logits" not in context.task.predict:
    raise ValueError("probabilities needs a task that predicts logits")
  if not context.workdir:
    raise ValueError("probabilities needs a workdir to write to")

  @jax.jit
  def predict(variables, batch, rng):
    logits_BC = context.task.predict["logits"](variables, batch, rng)
    p_BC = jax.nn.softmax(logits_BC.astype(jnp.float32))
    return p_BC * batch["mask"][:, None], batch["index"]

  def evaluate(variables, step):
    found, places = [], []
    for batch in context.batches():
      p_BC, index_B = context.fetch(predict(variables, batch, context.rng))
      found.append(p_BC[index_B >= 0])
      places.append(index_B[index_B >= 0])
    places = np.concatenate(places)
    table_NC = np.zeros((places.max() + 1, found[0].shape[1]), np.float32)
    table_NC[places] = np.concatenate(found)
    if jax.process_index() == 0:
      folder = pathlib.Path(context.workdir) / context.key
      folder.mkdir(exist_ok=True)
      np.save(folder / f"{step}.npy", table_NC)
    return {"confidence": float(table_NC.max(1).mean())}

  return types.Measuring(evaluate, lambda variables: ("confidence",))
