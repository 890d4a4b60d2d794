"""Windows of a token file as examples."""

from collections.abc import Callable

import numpy as np

from input_pipeline.tokenizers import Tokenizer

# Of windows, of rows of whole documents, and of what ops make of them.
AXES = dict.fromkeys(
  (
    *("inputs", "targets", "mask", "segments", "positions"),
    *("inputs_mask", "block_positions"),
  ),
  ("time",),
)
UNITS = {"targets": "tokens"}


def windows(
  tokens_N: np.ndarray,
  tokenizer: Tokenizer,
  seq_len: int,
  partial: bool,
  title: str,
) -> tuple[int, Callable[[np.ndarray], dict[str, np.ndarray]]]:
  """Returns (number of windows of seq_len targets, reader of windows).

  Args:
    tokens_N: of the token file.
    tokenizer: of the tokens.
    seq_len: T.
    partial: whether the last window may be short.
    title: the name of the tokens in error messages.

  Raises:
    ValueError: the tokens do not fill one window.
  """
  predicted = len(tokens_N) - 1
  if predicted < seq_len:
    raise ValueError(
      f"{title} has {len(tokens_N)} tokens; seq_len {seq_len} needs "
      f"{seq_len + 1}"
    )
  byte_lengths_V = tokenizer.byte_lengths.astype(np.float32)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    place_BT = indices[:, None] * seq_len + np.arange(seq_len)
    mask_BT = place_BT < predicted
    place_BT = np.minimum(place_BT, predicted - 1)
    inputs_BT = np.where(mask_BT, tokens_N[place_BT], 0).astype(np.int32)
    targets_BT = np.where(mask_BT, tokens_N[place_BT + 1], 0).astype(np.int32)
    return {
      "inputs": inputs_BT,
      "targets": targets_BT,
      "mask": mask_BT.astype(np.float32),
      "bytes": np.sum(byte_lengths_V[targets_BT] * mask_BT, 1, np.float32),
    }

  return -(-predicted // seq_len) if partial else predicted // seq_len, read
