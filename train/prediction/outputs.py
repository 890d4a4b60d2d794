"""Numbers of a regression."""

import numpy as np

from train.prediction import Context, Renderer


def outputs(context: Context) -> Renderer:
  """Records {"record", "value"}, or "value_1" and so on of several outputs.

  Values are in the unit of the data where `scale_target` of the rows scaled
  them, and else in the unit of "y" in training.
  """
  unscaled = context.unscaled or (lambda y: y)

  def render(pieces):
    for piece in pieces:
      values_NO = unscaled(piece.values.reshape(len(piece.records), -1))
      for record, value_O in zip(piece.records, values_NO, strict=True):
        alone = len(value_O) == 1
        yield {
          "record": record,
          # The shortest spelling of the float32 that the model computed.
          **{
            "value" if alone else f"value_{i}": float(str(np.float32(value)))
            for i, value in enumerate(value_O, 1)
          },
        }

  return render
