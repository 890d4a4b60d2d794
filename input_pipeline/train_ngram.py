r"""Trains an n-gram model: `python -m input_pipeline.train_ngram`.

  python -m input_pipeline.train_ngram --data='text:wiki/*.txt' --order=5 \
    --tokenizer=byte --output=wiki.npz

The file also holds the tokenizer and is read by the cleaning stage
`perplexity`. The model has Kneser-Ney smoothing; see
input_pipeline/cleaning/parts/ngram.py. Prints the numbers of n-grams, and bits
and perplexity per byte on a held-out split.
"""

import math
import sys
from collections.abc import Callable, Sequence

from absl import flags

from common import cli, storage


def define_flags() -> None:
  """Defines the flags; not on import, as other programs share their names."""
  flags.DEFINE_list("data", [], "The URIs of the texts, separated by commas.")
  flags.DEFINE_string("split", "train", "The split to count n-grams in.")
  flags.DEFINE_string(
    "held_out", "validation", "The split to measure on; '' measures nothing."
  )
  flags.DEFINE_string("text_key", "text", "The field that holds the text.")
  flags.DEFINE_string(
    "tokenizer",
    "byte",
    "The tokenizer, as in input_pipeline/tokenizers/__init__.py.",
  )
  flags.DEFINE_integer("order", 5, "The largest n of the n-grams.")
  flags.DEFINE_string("output", None, "The .npz file to write the model to.")


def main(argv) -> None:
  """Trains with the settings that the flags give."""
  del argv
  values = flags.FLAGS
  if not values.data or not values.output:
    raise cli.UserError(
      "the flags --data=URI and --output=FILE.npz are required"
    )
  storage.check_local("--output", values.output)
  names = "data output split held_out text_key tokenizer order".split()
  try:
    train(**{name: values[name].value for name in names})
  except ValueError as error:
    raise cli.UserError(str(error)) from error


def train(
  data: Sequence[str],
  output: str,
  split: str = "train",
  held_out: str = "validation",
  text_key: str = "text",
  tokenizer: str = "byte",
  order: int = 5,
  say: Callable[[str], None] = print,
) -> None:
  """Trains an n-gram model, writes it and measures it; see the flags.

  Raises:
    ValueError: one of them is wrong; the message is one line.
  """
  from input_pipeline.cleaning.parts import ngram, ngram_file
  from input_pipeline.sources import open_source
  from input_pipeline.sources.parts.documents import texts
  from input_pipeline.tokenizers import get_tokenizer

  if not output.endswith(".npz"):
    raise ValueError(f"--output={output} must end in .npz")
  words = get_tokenizer(tokenizer, [(uri, text_key) for uri in data])

  def read(split: str):
    for uri in data:
      yield from texts(open_source(uri, split), text_key, uri)

  ids = (words.encode(text) for text in read(split))
  model = ngram.fit(ids, order, words.vocab_size)
  ngram_file.save(output, model, words)
  for n, (keys, discount) in enumerate(
    zip(model.keys, model.discounts, strict=True), start=1
  ):
    say(f"{n}-grams: {len(keys):,}, discount {discount:.4f}")
  if held_out:
    nats = size = 0
    for text in read(held_out):
      nats -= float(ngram.log_prob(model, words.encode(text)).sum())
      size += len(text.encode())
    bits = nats / math.log(2) / max(size, 1)
    say(
      f"{held_out}: {bits:.4f} bits and perplexity {2**bits:.4f} per byte, "
      f"over {size:,} bytes"
    )
  say(output)


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main))
