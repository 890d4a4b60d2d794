"""Several random views of an image, each a field of its own."""

import tensorflow as tf

from input_pipeline import ops as ops_lib
from input_pipeline.ops import Context, Example, on_example


@on_example
def views(
  example: Example,
  ops: str,
  count: int = 2,
  name: str = "view",
  inkey: str = "image",
  *,
  seed,
  context: Context,
) -> Example:
  """The fields NAME_1 … NAME_count, each made by `ops` from the same image.

  What is random is drawn for each view anew. The image stays as it was, so that
  ops after this one prepare it for the predictions: "decode(3)|resize(32)|
  views('random_resized_crop(32)|flip|scale')|scale".

  Args:
    example: has the field `inkey`.
    ops: the operations of a view, on its field "image"; none may mix examples.
    count: the number of views.
    name: begins the names of the fields.
    inkey: the field of the image.
    seed: int64 [2].
    context: of the data.

  Raises:
    ValueError: `ops` is malformed or mixes examples, or there is no image.
  """
  if inkey not in example:
    raise ValueError(f"no field {inkey!r}; valid: {', '.join(example)}")
  if ops_lib.mixes(ops):
    raise ValueError("the ops of a view must not mix examples")
  apply = ops_lib.compile(ops, context) if ops.strip() else lambda x, _: x
  found = {}
  for i in range(1, count + 1):
    # Names differ where two calls make views, and so do the draws.
    own = tf.random.experimental.stateless_fold_in(seed, i)
    found[f"{name}_{i}"] = apply({"image": example[inkey]}, own)["image"]
  return {**example, **found}
