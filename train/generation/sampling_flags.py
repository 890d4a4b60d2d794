"""The sampling flags, shared by every command that generates text."""

from absl import flags

FLAGS = flags.FLAGS
# Each command's --help lists these flags as its own.
flags.disclaim_key_flags()


def define() -> None:
  """Defines the flags; commands define `seed` and `max_tokens` themselves."""
  flags.DEFINE_float(
    "temperature",
    0.8,
    "The sampling temperature; 0 always selects the most likely token.",
    0.0,
  )
  flags.DEFINE_integer(
    "top_k",
    None,
    "Sample from the k most likely tokens only. Default: no limit.",
    1,
  )
  flags.DEFINE_float(
    "top_p",
    None,
    "Sample from the most likely tokens whose probabilities sum to this value "
    "(nucleus sampling). Default: no limit.",
    0.0,
    1.0,
  )
  flags.DEFINE_float(
    "min_p",
    None,
    "Sample only from tokens whose probability is at least this fraction of "
    "the most likely token's. Default: no limit.",
    0.0,
    1.0,
  )
  flags.DEFINE_float(
    "repetition_penalty",
    1.0,
    "Factor that divides the positive logits of tokens already in the text "
    "and multiplies the negative ones; 1 applies no penalty.",
    0.0,
  )
  flags.DEFINE_multi_string(
    "stop",
    [],
    "Generation ends at this string, which is not part of the output. May be "
    "given several times.",
  )


def options(seed: int):
  """Returns the flags as streaming.Options, not yet validated."""
  from train.generation import streaming

  return streaming.Options(
    max_tokens=FLAGS.max_tokens,
    temperature=FLAGS.temperature,
    top_k=FLAGS.top_k,
    top_p=FLAGS.top_p,
    min_p=FLAGS.min_p,
    repetition_penalty=FLAGS.repetition_penalty,
    stop=tuple(FLAGS.stop),
    seed=seed,
  )
