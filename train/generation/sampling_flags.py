"""The sampling flags, shared by every command that generates text."""

from absl import flags

FLAGS = flags.FLAGS
# Each command lists them in its own --help.
flags.disclaim_key_flags()


def define() -> None:
  """Defines them; each command defines `seed` and `max_tokens` itself."""
  flags.DEFINE_float(
    "temperature",
    0.8,
    "The sampling temperature; 0 always takes the most likely token.",
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
    "Divides the positive logits of tokens that are already in the text, and "
    "multiplies the negative ones; 1 is no penalty.",
    0.0,
  )
  flags.DEFINE_multi_string(
    "stop",
    [],
    "A string at which a text ends; it is not part of the text. May be given "
    "several times.",
  )


def options(seed: int):
  """The streaming.Options given by the flags, not yet validated."""
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
