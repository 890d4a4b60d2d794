"""The flags of how text is drawn, which every verb that writes text has."""

from absl import flags

FLAGS = flags.FLAGS
# They are the verb's own, and stand in its --help.
flags.disclaim_key_flags()


def define() -> None:
  """Defines them; `seed` and `max_tokens` are each verb's own."""
  flags.DEFINE_float("temperature", 0.8, "0 takes the likeliest token.", 0.0)
  flags.DEFINE_integer("top_k", None, "Only the k likeliest tokens.", 1)
  flags.DEFINE_float("top_p", None, "Only a nucleus of that mass.", 0.0, 1.0)
  flags.DEFINE_float(
    "min_p", None, "Only tokens with that share of the best's.", 0.0, 1.0
  )
  flags.DEFINE_float(
    "repetition_penalty", 1.0, "Divides the scores of tokens in the text.", 0.0
  )
  flags.DEFINE_multi_string("stop", [], "Ends a text before it; repeatable.")


def options(seed: int):
  """The generation.Options that the flags ask for; not yet checked."""
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
