"""What a run predicts, and the operations that new data go through."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from common.errors import UserError
from common.leaf import MASK_AND_INDEX, Leaf, Spec, arrays
from input_pipeline import ops
from input_pipeline.batching import components
from input_pipeline.ops.parts import rewriting
from train import assembly, build, prediction, sharding, trained
from train.prediction import PICTURE, Context, Rendering

# The default batch is the run's, but at most this.
_MOST_ROWS = 256


class Wanted(NamedTuple):
  """What to predict.

  where: the flag that names the data, for errors.
  data: settings that replace those of the run, with "source" and "split".
  batch: the number of rows at a time; None for the run's.
  top: the number of alternatives to write.
  options: further settings of the kind of prediction.
  files: whether the data are files of pictures of any size.
  """

  where: str
  data: Mapping[str, Any]
  batch: int | None = None
  top: int = 1
  options: Mapping[str, Any] = {}
  files: bool = False


class Prepared(NamedTuple):
  """What is known before data are read.

  kind: the name of the prediction.
  read: the leaves that it reads.
  absent: leaves of a batch that new data lack, of one axis or more.
  labels: {name: Leaf} of the others that it does not read.
  picture: the leaf of `read` that is a picture, or None.
  settings: of the data.
  note: a line on them, or "".
  """

  kind: str
  context: Context
  rendering: Rendering
  read: list[str]
  absent: list[str]
  labels: Spec
  picture: str | None
  settings: dict[str, Any]
  note: str = ""


def prepared(
  found: trained.Trained, wanted: Wanted, kind: str | None = None
) -> Prepared:
  """Returns what a run predicts of new data, and how the data are read.

  Args:
    found: the run.
    wanted: the data.
    kind: a prediction that is not written as records; None for the one that is.

  Raises:
    UserError: the run predicts nothing that can be written, or the operations
      are malformed.
  """
  parts = found.parts
  config, spec = parts.config, parts.data.spec
  name = config["task"]["name"]
  rendering = Rendering(iter) if kind else None
  kind = kind or prediction.kind_of(parts.task, name)
  predict = parts.task.predict[kind]
  read, abstract = leaves_read(predict, found.variables, spec)
  evaluator, settings = _settings(config, wanted.data)
  context = Context(
    abstract,
    spec,
    parts.data.class_names,
    wanted.top,
    evaluator,
    wanted.options,
  )
  rendering = rendering or _rendering(kind, context, name)
  picture = next((k for k in read if spec[k].axes == PICTURE), None)
  raw = not settings.get("rows") and settings.get("tokenizer") is None
  others = [k for k in spec if k not in (*read, *MASK_AND_INDEX)]
  absent = [k for k in others if raw and picture and spec[k].shape]
  labels = {k: spec[k] for k in others if k not in absent}
  note = ""
  if picture is not None and raw:
    try:
      settings["ops"], note = _of_pictures(
        settings.get("ops", ""), absent, picture, spec, rendering, wanted.files
      )
    except ValueError as error:
      raise UserError(f"{wanted.where}.ops: {error}") from error
  return Prepared(
    kind, context, rendering, read, absent, labels, picture, settings, note
  )


def _rendering(kind: str, context: Context, name: str) -> Rendering:
  """The Rendering of a kind of prediction of the task `name`.

  Raises:
    UserError: the predictions cannot be written, or have no such option.
  """
  options = _Used(context.options)
  try:
    made = prediction.rendering(kind, context._replace(options=options))
  except ValueError as error:
    raise UserError(f"--workdir: {prediction.no_labels(name)}") from error
  for key, value in context.options.items():
    if value is not None and key not in options.used:
      raise UserError(
        f"--{key}: the predictions of this run, {kind}, have no such option"
      )
  return made


class _Used(Mapping):
  """Options, and the names of those that were asked for."""

  def __init__(self, options: Mapping[str, Any]):
    self.options, self.used = options, set()

  def __getitem__(self, name):
    self.used.add(name)
    return self.options[name]

  def __iter__(self):
    return iter(self.options)

  def __len__(self):
    return len(self.options)


def of_any_picture(found: trained.Trained) -> Prepared | None:
  """Returns what a run predicts of a picture; None if it reads none.

  Raises:
    UserError: it predicts nothing of pictures, but is trained on them.
  """
  spec = found.parts.data.spec
  if not any(leaf.axes == PICTURE for leaf in spec.values()):
    return None
  data = {"source": "images:", "split": "all"}
  ready = prepared(found, Wanted("--workdir", data, files=True))
  return ready if ready.picture is not None else None


def _of_pictures(
  string: str,
  absent: list[str],
  picture: str,
  spec: Spec,
  rendering: Rendering,
  files: bool,
) -> tuple[str, str]:
  """Returns (the ops for pictures without labels, a note on them)."""
  string = rewriting.without_fields(string, absent)
  if rendering.unmoved:
    string = rewriting.in_place(string)
  note = ""
  if files:
    height, width, channels = spec[picture].shape
    if rendering.whole:
      height = width = 0
    string, note = rewriting.fitted(
      string, picture, (height, width, channels), spec[picture].dtype
    )
  if rendering.placed and picture == "image":
    string = rewriting.with_place(string)
  return string, note


def leaves_read(predict, variables, spec: Spec) -> tuple[list[str], Any]:
  """Returns the leaves that a prediction reads, and its abstract value."""
  read: set[str] = set()

  class Watched(Mapping):
    """A batch that notes which of its leaves are read."""

    def __init__(self, batch):
      self.batch = batch

    def __getitem__(self, leaf):
      found = self.batch[leaf]
      read.add(leaf)
      return found

    def __contains__(self, leaf):
      return leaf in self.batch

    def __iter__(self):
      return iter(self.batch)

    def __len__(self):
      return len(self.batch)

  batch = arrays(spec, 1, jax.ShapeDtypeStruct)
  abstract = jax.eval_shape(
    lambda v, b, rng: predict(v, Watched(b), rng),
    variables,
    batch,
    jax.random.key(0),
  )
  return sorted(read), abstract


def rows_of_batch(found: trained.Trained, wanted: Wanted) -> int:
  """The rows of a batch, rounded up to a multiple of the mesh's parts."""
  rows = wanted.batch or min(found.parts.data.batch_size, _MOST_ROWS)
  return whole_batch(rows, found.parts.mesh)


def whole_batch(rows: int, mesh) -> int:
  """`rows`, rounded up to a multiple of the mesh's parts."""
  parts = sharding.batch_parts(mesh)
  return -(-rows // parts) * parts


def _settings(config, given: Mapping[str, Any]) -> tuple[dict, dict]:
  """Returns the settings of the run's evaluator, and of the data to predict.

  The preprocessing is that of the evaluation which chooses the best checkpoint,
  else of the first one. If it has no ops of its own, those of training apply,
  without what is random in them.
  """
  shared = build.shared_settings(config)
  evaluator: dict[str, Any] = {}
  own: dict[str, Any] = {}
  metrics = (
    config["checkpoint"].get("keep_best"),
    (config["early_stopping"] or {}).get("metric"),
  )
  chosen = [str(m).partition("/")[0] for m in metrics if m]
  keys = [k for k in chosen if k in config["evals"]]
  keys += assembly.eval_keys(config)
  if keys:
    _, evaluator, own = build.eval_section(config, keys[0])
  settings = {**components.inherited(shared, own), **given}
  settings.pop("mixture", None)
  if "ops" not in own and "ops" not in given and settings.get("ops"):
    settings["ops"] = ops.without_random(settings["ops"])
  return evaluator, settings


def check_leaves(
  found: Spec, ready: Prepared, wanted: Wanted, fits: Callable[[Spec], bool]
) -> None:
  """Raises UserError unless the rows have what the model reads.

  The height and width of pictures may differ from those of training in the
  run's own evaluation, or if each pixel has a prediction.

  Args:
    found: the leaves of the data.
    ready: the run.
    wanted: the data.
    fits: (leaves) -> whether the model can read them.
  """
  spec = ready.context.spec
  for leaf in ready.read:
    if leaf not in found:
      raise UserError(
        f"{wanted.where}: the model reads {leaf!r}, and the data have"
        f" {', '.join(sorted(found))}"
      )
    shape, known = list(found[leaf].shape), list(spec[leaf].shape)
    free = ready.rendering.placed or "ops" not in wanted.data
    resized = (
      leaf == ready.picture and free and shape[2:] == known[2:]
    ) and fits({**found, leaf: Leaf(tuple(shape), found[leaf].dtype)})
    if shape != known and not resized:
      raise UserError(
        f"{wanted.where}: {leaf!r} has the shape {shape}, and the model was"
        f" trained on {known}; --ops sets another preprocessing"
      )
