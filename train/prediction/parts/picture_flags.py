"""The flags of train.predict that concern pictures."""

from typing import Any

from absl import flags

from common import cli

FLAGS = flags.FLAGS
# The --help of train.predict lists these flags as its own.
flags.disclaim_key_flags()


def define() -> None:
  """Defines the flags."""
  _define_drawn()
  flags.DEFINE_float(
    "min_score",
    None,
    "The least score of an object that is written and drawn. Default: 0.05 for "
    "what is written, 0.3 for what is drawn.",
    0.0,
    1.0,
  )
  flags.DEFINE_float(
    "level",
    None,
    "The standard deviation of the noise that a denoiser removes, from 0 to "
    "255. Default: that of the run's evaluation.",
    0.0,
    255.0,
  )
  flags.DEFINE_string(
    "window",
    None,
    "The size of the windows in which the classes of pixels are computed, "
    "HEIGHT,WIDTH in pixels or one number for both. The probabilities of "
    "overlapping windows are averaged, and pictures keep their own size unless "
    "--ops or the run's evaluation resizes them. 0 takes pictures whole. "
    "Default: that of the run's evaluation.",
  )
  flags.DEFINE_float(
    "overlap",
    None,
    "The least share of a window that the next one covers too, from 0 to 0.99. "
    "Default: that of the run's evaluation, or 0.5.",
    0.0,
    0.99,
  )
  flags.DEFINE_bool(
    "flips",
    None,
    "Whether the classes of a picture or of its pixels are the mean of it and "
    "its mirror image. Default: as in the run's evaluation.",
  )


def _define_drawn() -> None:
  flags.DEFINE_integer(
    "number",
    None,
    "The number of pictures to draw, by a run that generates pictures. "
    "Default: one for each --prompt, if there are any.",
    1,
  )
  flags.DEFINE_integer(
    "seed",
    0,
    "The random seed of --number. A picture depends on it and on its place.",
  )
  flags.DEFINE_string(
    "label",
    None,
    "The class of the pictures of --number, its name or number. Default: each "
    "class in turn, if the run has classes.",
  )
  flags.DEFINE_multi_string(
    "prompt",
    [],
    "The text that the pictures of --number show, by a run that was trained on "
    "captions. May be given several times; pictures then take them in turn. "
    "Default: no text.",
  )


def draws() -> bool:
  """Whether pictures are drawn, from no data.

  Raises:
    UserError: there are data as well as prompts.
  """
  given = [f"--{f}" for f in ("source", "text", "images") if FLAGS[f].value]
  if FLAGS.prompt and given:
    raise cli.UserError(f"--prompt draws pictures; leave out {given[0]}")
  return bool(FLAGS.number or FLAGS.prompt)


def drawing(batch: int | None):
  """The drawn.Drawing of the flags; `batch` is None or their number at once."""
  from train.prediction.parts import drawn

  prompts = tuple(FLAGS.prompt)
  number = FLAGS.number or len(prompts)
  return drawn.Drawing(number, FLAGS.seed, FLAGS.label, batch, prompts)


def options() -> dict[str, Any]:
  """Settings of a kind of prediction, by the names of their flags.

  Raises:
    UserError: a flag is malformed.
  """
  names = ("min_score", "level", "overlap", "flips")
  return {"window": _window(), **{name: FLAGS[name].value for name in names}}


def _window() -> tuple[int, ...] | None:
  text = FLAGS.window
  if text is None:
    return None
  try:
    numbers = tuple(int(number) for number in text.split(","))
  except ValueError:
    numbers = ()
  if numbers == (0,):
    return ()
  if len(numbers) not in (1, 2) or min(numbers) < 1:
    raise cli.UserError(
      f"--window={text}: give HEIGHT,WIDTH in pixels, one number for both, or 0"
    )
  return numbers * (3 - len(numbers))
