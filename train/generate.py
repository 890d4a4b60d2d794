"""Continues a prompt: `python -m train.generate --workdir=… --prompt=…`."""

import sys

from absl import flags

from train import cli

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Where the run lives.", required=True)
flags.DEFINE_string("prompt", "\n", "What the text goes on from.")
flags.DEFINE_float("temperature", 0.8, "0 takes the likeliest token.", 0.0)
flags.DEFINE_integer("top_k", None, "Only the k likeliest tokens.", 1)
flags.DEFINE_float("top_p", None, "Only a nucleus of that mass.", 0.0, 1.0)
flags.DEFINE_integer("seed", 0, "Of the draws: equal seeds, equal text.")
flags.DEFINE_integer("max_tokens", 200, "Tokens to write.", 1)
flags.DEFINE_integer("step", None, "Which checkpoint; the last by default.")


def main(argv) -> None:
  """Prints the prompt and what the model writes after it."""
  del argv
  cli.start_jax()
  from train import trained

  found = trained.load(FLAGS.workdir, FLAGS.step)
  print(
    continuation(
      found,
      FLAGS.prompt,
      max_tokens=FLAGS.max_tokens,
      seed=FLAGS.seed,
      temperature=FLAGS.temperature,
      top_k=FLAGS.top_k,
      top_p=FLAGS.top_p,
    )
  )


def continuation(found, prompt: str, *, max_tokens: int, seed: int, **how):
  """The prompt and `max_tokens` more, as text.

  Args:
    found: trained.Trained of a language model.
    prompt: not empty.
    max_tokens: to write.
    seed: of the draws.
    **how: temperature, top_k, top_p of decode.generate.

  Raises:
    UserError: the run is no language model, or the prompt cannot be encoded.
  """
  import jax
  import jax.numpy as jnp
  import numpy as np

  from train import decode

  model, tokenizer = found.parts.model, found.parts.data.tokenizer
  if tokenizer is None or getattr(model, "init_cache", None) is None:
    raise cli.UserError("this run's model does not write text")
  try:
    ids = np.asarray(tokenizer.encode(prompt), np.int32)
    if not len(ids):
      raise ValueError("is empty")
  except ValueError as error:
    raise cli.UserError(f"--prompt: {error}") from error
  tokens_BL = np.zeros((1, len(ids) + max_tokens), np.int32)
  tokens_BL[0, : len(ids)] = ids
  mask_BL = (np.arange(tokens_BL.shape[1]) < len(ids))[None]

  @jax.jit
  def write(variables, tokens_BL, mask_BL, rng):
    step, cache = decode.stepper(model, variables, *tokens_BL.shape)
    return decode.generate(step, cache, tokens_BL, mask_BL, rng, **how)

  written_BL = write(
    found.variables,
    jnp.asarray(tokens_BL),
    jnp.asarray(mask_BL),
    jax.random.key(seed),
  )
  return tokenizer.decode(np.asarray(written_BL)[0])


if __name__ == "__main__":
  sys.exit(cli.run(main))
