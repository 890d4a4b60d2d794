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
        # The shortest spelling of the number that the model computed.
        numbers = [float(str(np.float32(v))) for v in value_O]
        ends = (
          [""]
          if len(numbers) == 1
          else [f"_{i + 1}" for i in range(len(numbers))]
        )
        named = {f"value{e}": n for e, n in zip(ends, numbers, strict=True)}
        yield {"record": record, **named}

  return render
