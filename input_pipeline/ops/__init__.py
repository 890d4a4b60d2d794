"""Preprocessing as a string: "decode|random_crop(32, pad=4)|flip|scale".

The arguments are Python literals. Each op maps one example, a dict, to
another. By default it reads and writes the field "image"; `inkey` and `outkey`
name other fields. All randomness of an op comes from the example's own seed, so
that the result is the same on every host and at every step.

Ops that move the pixels of "image" (resize, crops, flip, rotation, affine) also
move what has a place in it: the fields "boxes", "keypoints", "segmentation" and
"instances"; see parts/moving.py. A box of which less than the share `keep`
remains is left out with its values in "classes", "crowd" and so on.

Ops are plain functions under a decorator (`on_field`, `on_picture`,
`on_example`, `on_pair`, `on_group`) in any file of this folder. A pair op
blends an example with another one, its partner, to which the preceding ops were
applied with the partner's own seed; a group op has several partners. Ops on
windows of tokens may add tokens to the vocabulary; see
tokenizers/parts/special_tokens.py.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from common import annotations, names
from input_pipeline.ops.parts.calls import Call, calls
from input_pipeline.tensorflow_cpu import import_tensorflow

Example = dict[str, Any]

# The field in which boxes and masks have their places.
_PICTURE = "image"
# The share of a box that must remain in the picture, by default.
_KEEP = 0.25
# Passed by the pipeline, and not written in the string.
_GIVEN = ("value", "example", "partner", "partners", "seed", "context")


class Context(NamedTuple):
  """Properties of the data that an op may need.

  num_classes: number of classes of the source's labels, or None.
  tokenizer: tokenizer of the windows, with the tokens that the ops add, or
    None.
  """

  num_classes: int | None = None
  tokenizer: Any = None


class Moved(NamedTuple):
  """A picture that an op has moved.

  value: [h, w, c].
  source: float32 [2, 3], the affine map from a position (x, y) in it to the one
    in the picture before the op, in pixels from the upper left corner.
  """

  value: Any
  source: Any


class _Op(NamedTuple):
  """An op, which takes a "field", an "example", or an example and its partners.

  takes: "field", "example", "pair" or "group".
  moves: "" for an op that leaves pixels at their places, "all" for one that
    returns Moved, and "alone" for one that cannot move boxes and masks.
  partners: the number of examples that it mixes with its own one.
  """

  function: Callable[..., Any]
  takes: str
  moves: str = ""
  partners: int = 0


_OPS: dict[str, _Op] = {}
_TRAITS: dict[str, "Traits"] = {}


def on_field(function: Callable[..., Any]) -> Callable[..., Any]:
  """Registers (value, ...) -> value as an op on one field of an example.

  If it has a parameter `seed`, it is passed an int64 [2] that is specific to
  the example and the op; a parameter `context` is passed the Context.
  """
  _OPS[function.__name__] = _Op(function, "field")
  return function


def on_picture(function: Callable[..., Moved]) -> Callable[..., Moved]:
  """Registers (picture, ...) -> Moved, an op on a field that moves its pixels.

  If the field is "image", everything that has a place in it moves as well.
  """
  _OPS[function.__name__] = _Op(function, "field", "all")
  return function


def on_picture_alone(function: Callable[..., Any]) -> Callable[..., Any]:
  """Registers an op as `on_field` does, and refuses examples with boxes.

  It moves pixels, and boxes or masks would no longer fit the picture.
  """
  _OPS[function.__name__] = _Op(function, "field", "alone")
  return function


def on_example(function: Callable[..., Example]) -> Callable[..., Example]:
  """Registers (example, ...) -> example as an op."""
  _OPS[function.__name__] = _Op(function, "example")
  return function


def on_pair(function: Callable[..., Example]) -> Callable[..., Example]:
  """Registers (example, partner, ...) -> example as an op that mixes both."""
  _OPS[function.__name__] = _Op(function, "pair", partners=1)
  return function


def on_group(partners: int) -> Callable[[Callable], Callable]:
  """Registers (example, [partner, ...], ...) -> example as an op.

  Args:
    partners: the number of partners, which are drawn apart from one another.
  """

  def register(function: Callable[..., Example]) -> Callable[..., Example]:
    _OPS[function.__name__] = _Op(function, "group", partners=partners)
    return function

  return register


def _registry() -> dict[str, _Op]:
  """The ops of every file in this folder, by name."""
  import_tensorflow()
  for module in names.discover(__name__).values():
    importlib.import_module(module)
  return _OPS


class Traits(NamedTuple):
  """What the pipeline must know of an op.

  settles: fields that a source calls uniform, which the op checks or sets.
  in_python: whether it runs in Python, and so in no worker of a data service.
  takes_second: whether it reads the record of the second source, data.second.
  """

  settles: tuple[str, ...] = ()
  in_python: bool = False
  takes_second: bool = False


def traits(**given: Any) -> Callable[[Callable], Callable]:
  """Registers the Traits of an op; goes above the decorator of its kind."""

  def register(function: Callable) -> Callable:
    _TRAITS[function.__name__] = Traits(**given)
    return function

  return register


def parse(string: str) -> list[tuple[str, tuple, dict[str, Any]]]:
  """[(name, args, kwargs)] of each op, in order.

  Raises:
    ValueError: the string is malformed, an op or argument is unknown, or two
      ops mix examples; one line with the position in the string.
  """
  found = calls(string)
  for call in found:
    _check(call)
  pairs = [c for c in found if _OPS[c.name].partners]
  if len(pairs) > 1:
    raise ValueError(
      f"{pairs[1].where}: {pairs[1].name}: {pairs[0].name} already mixes the"
      " examples; mixup_or_cutmix(...) alternates"
    )
  return [(call.name, call.args, call.kwargs) for call in found]


def _check(call: Call) -> None:
  """Raises ValueError unless the op exists and takes the arguments."""
  registry = _registry()
  if call.name not in registry:
    raise ValueError(
      f"{call.where}: no op {call.name!r}{names.nearest(call.name, registry)}"
      f" (there are: {', '.join(sorted(registry))})"
    )
  signature = _signature(registry[call.name])
  try:
    signature.bind(*call.args, **call.kwargs)
  except TypeError as error:
    raise ValueError(f"{call.where}: {call.name}{signature}: {error}") from None


def _signature(op: _Op) -> inspect.Signature:
  """The parameters that the string may set, for binding and for messages."""
  parameters = [
    p.replace(annotation=inspect.Parameter.empty)
    for name, p in inspect.signature(op.function).parameters.items()
    if name not in _GIVEN
  ]
  if op.takes == "field":
    parameters += [
      inspect.Parameter(
        "inkey", inspect.Parameter.KEYWORD_ONLY, default="image"
      ),
      inspect.Parameter("outkey", inspect.Parameter.KEYWORD_ONLY, default=None),
    ]
  if op.moves == "all":
    parameters.append(
      inspect.Parameter("keep", inspect.Parameter.KEYWORD_ONLY, default=_KEEP)
    )
  return inspect.Signature(parameters)


def mixes(string: str) -> bool:
  """Whether an op mixes each example with other ones, its partners."""
  return partners(string) > 0


def partners(string: str) -> int:
  """The number of examples that each example is mixed with; 0 without ops."""
  found = parse(string) if string else ()
  return sum(_OPS[name].partners for name, _, _ in found)


def without_random(string: str) -> str:
  """Returns the string without its ops that draw or mix at random."""
  kept = []
  for call in parse(string) if string.strip() else ():
    op = _OPS[call[0]]
    takes = inspect.signature(op.function).parameters
    if not op.partners and "seed" not in takes:
      kept.append(call)
  return spelled(kept)


def spelled(calls_: Iterable[tuple[str, tuple, dict[str, Any]]]) -> str:
  """Returns the string of which `parse` makes these (name, args, kwargs)."""
  found = []
  for name, args, kwargs in calls_:
    given = [*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())]
    found.append(f"{name}({', '.join(given)})" if given else name)
  return "|".join(found)


def moves(name: str) -> bool:
  """Whether an op moves the pixels of a picture."""
  return bool(_registry()[name].moves)


def field_of(name: str, args: tuple, kwargs: Mapping[str, Any]) -> str | None:
  """Returns the field that a call reads, None if it names no single one."""
  bound = _signature(_registry()[name]).bind(*args, **kwargs)
  bound.apply_defaults()
  return bound.arguments.get("inkey")


def traits_of(string: str) -> dict[str, Traits]:
  """The traits of each op of a string, by its name; {} of an empty one."""
  found = parse(string) if string else ()
  return {name: _TRAITS.get(name, Traits()) for name, _, _ in found}


def unsettled(string: str, fields: Iterable[str]) -> dict[str, str]:
  """Returns {field that no op sets or checks: which ops would}."""
  done = {f for each in traits_of(string).values() for f in each.settles}
  _registry()
  advice = {}
  for field in fields:
    names_of = sorted(n for n, each in _TRAITS.items() if field in each.settles)
    advice[field] = f"add an op that sets or checks it: {', '.join(names_of)}"
  return {field: line for field, line in advice.items() if field not in done}


def compile(
  string: str, context: Context = Context()
) -> Callable[..., Example]:
  """Returns the ops of a string as one function (example, seed) -> example.

  `seed` is an int64 tensor [2]. The results are bitwise equal in eager mode
  and in tf.data. If an op mixes examples, the function takes two more
  arguments for each partner: the partner before any op, and its seed.
  """
  tf = import_tensorflow()
  steps = [
    (_OPS[name], name, args, kwargs) for name, args, kwargs in parse(string)
  ]
  mixing = next((i for i, (op, *_) in enumerate(steps) if op.partners), None)

  def through(example: Example, seed: Any, begin: int, end: int, *others):
    for i in range(begin, end):
      op, name, args, kwargs = steps[i]
      kwargs = dict(kwargs)
      given = inspect.signature(op.function).parameters
      if "context" in given:
        kwargs["context"] = context
      if "seed" in given:
        # Folding in the position makes the draws of the ops independent.
        kwargs["seed"] = tf.random.experimental.stateless_fold_in(seed, i)
      try:
        example = _apply(op, example, others, args, kwargs)
      except Exception as error:  # an argument may be of any type and size
        reason = _mistyped(error, op, args, steps[i][3])
        # Otherwise it is due to the record, and the caller names it.
        if not reason and isinstance(error, tf.errors.OpError):
          raise
        reason = reason or _first_line(error)
        raise ValueError(f"op {name!r}: {reason}") from None
    return example

  def apply(example: Example, seed: Any, *given: Any) -> Example:
    if mixing is None:
      return through(example, seed, 0, len(steps))
    op, name, *_ = steps[mixing]
    if len(given) != 2 * op.partners:
      raise ValueError(
        f"op {name!r}: {len(given) // 2} of {op.partners} partners are given"
      )
    others = [
      through(partner, partner_seed, 0, mixing)
      for partner, partner_seed in zip(given[::2], given[1::2], strict=True)
    ]
    example = through(example, seed, 0, mixing)
    example = through(example, seed, mixing, mixing + 1, *others)
    return through(example, seed, mixing + 1, len(steps))

  return apply


def _mistyped(
  error: Exception, op: _Op, args: tuple, kwargs: dict[str, Any]
) -> str | None:
  """Which argument of an op is of a wrong type; None if none is to blame."""
  if isinstance(error, ValueError):
    return None
  given = _signature(op).bind(*args, **kwargs).arguments
  wrong = annotations.mistyped(op.function, given)
  return wrong and f"{wrong[0]}={given[wrong[0]]!r} is not {wrong[1]}"


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _apply(
  op: _Op, example: Example, others: tuple, args: tuple, kwargs: dict[str, Any]
) -> Example:
  if op.takes != "field":
    given = (list(others),) if op.takes == "group" else others
    changed = op.function(example, *given, *args, **kwargs)
    return {name: _fence(leaf) for name, leaf in changed.items()}
  inkey = kwargs.pop("inkey", "image")
  outkey = kwargs.pop("outkey", None) or inkey
  if inkey not in example:
    raise ValueError(f"no field {inkey!r}; valid: {', '.join(example)}")
  if not op.moves:
    value = op.function(example[inkey], *args, **kwargs)
    return {**example, outkey: _fence(value)}
  from input_pipeline.ops.parts import moving

  if inkey in moving.MASKS:  # which must not be interpolated
    raise ValueError(f"the field {inkey!r} moves with the image, not alone")
  keep = kwargs.pop("keep", _KEEP)
  bound = inkey == outkey == _PICTURE and moving.has_places(example)
  if op.moves == "alone":
    if bound:
      raise ValueError(
        "it moves the image alone, and the boxes or masks would no longer fit;"
        " flip, rotation, shear, resize and the crops move them as well"
      )
    value = op.function(example[inkey], *args, **kwargs)
    return {**example, outkey: _fence(value)}
  before = example[inkey]
  value, source = op.function(before, *args, **kwargs)
  changed = {outkey: value}
  if bound:
    changed |= moving.moved(example, before, value, source, keep)
  return {**example, **{name: _fence(leaf) for name, leaf in changed.items()}}


def _fence(value: Any) -> Any:
  """Identity that keeps tf.data from regrouping sums across ops."""
  return import_tensorflow().ensure_shape(value, value.shape)
