"""Tiny Shakespeare: 1.1 million characters of his plays, in one file."""

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github


def tinyshakespeare() -> Dataset:
  """The data set; the configs take the first 90 % for training."""
  return Dataset(
    what="1,115,394 characters of Shakespeare's plays (Karpathy 2015)",
    licence="public domain",
    origin="https://github.com/karpathy/char-rnn",
    digests=github.DIGESTS,
    files=github.files(
      "karpathy/char-rnn",
      "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e",
      "lm_tinyshakespeare",
      {
        "data/tinyshakespeare/input.txt": (
          1_115_394,
          "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ),
      },
    ),
    holds=("input.txt",),
    write=_write,
    configs=(
      "char_bengio",
      "char_elman",
      "char_glm",
      "char_gru",
      "char_llama",
      "char_lstm",
      "char_moe",
      "char_ngram",
      "lm_shakespeare",
      "next_word",
    ),
  )


def _write(files: Files) -> Written:
  yield "input.txt", files["input.txt"].read_bytes()
