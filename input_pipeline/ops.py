"""Preprocessing as a string: "decode|random_crop(32, pad=4)|flip|scale".

The arguments are Python literals. Each op maps one example, a dict, to
another; by default it reads and writes "image", and `inkey` and `outkey` name
other fields. An op draws its randomness only from the example's own seed, so
that an example looks the same whichever host or step asks for it.

Ops are plain functions under a decorator; see ops_image.py for those there
are.
"""

import ast
import difflib
import inspect
import os
from collections.abc import Callable
from typing import Any, NamedTuple

Example = dict[str, Any]

# Given by the pipeline, so not written in the string.
_GIVEN = ("value", "example", "seed")


class _Op(NamedTuple):
  """function: the op; whole: it takes the example rather than one field."""

  function: Callable[..., Any]
  whole: bool


_OPS: dict[str, _Op] = {}


def on_field(function: Callable[..., Any]) -> Callable[..., Any]:
  """Registers (value, ...) -> value as an op on one field of an example.

  A parameter `seed` is given an int64 [2] that is the example's and op's own.
  """
  _OPS[function.__name__] = _Op(function, whole=False)
  return function


def on_example(function: Callable[..., Example]) -> Callable[..., Example]:
  """Registers (example, ...) -> example as an op."""
  _OPS[function.__name__] = _Op(function, whole=True)
  return function


def import_tensorflow():
  """TensorFlow on the CPU alone: the accelerators belong to JAX."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  # oneDNN reorders sums by machine, and says so on every start.
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  try:
    import tensorflow as tf
  except ImportError:
    raise ValueError(
      "ops need TensorFlow, which is not installed: pip install 'tessera[data]'"
    ) from None
  if tf.config.get_visible_devices("GPU"):
    tf.config.set_visible_devices([], "GPU")
  return tf


def _registry() -> dict[str, _Op]:
  import_tensorflow()
  from input_pipeline import (  # noqa: F401
    ops_image,
    ops_randaugment,
    ops_tabular,
  )

  return _OPS


def parse(string: str) -> list[tuple[str, tuple, dict[str, Any]]]:
  """[(name, args, kwargs)] of each op, in order.

  Raises:
    ValueError: malformed, an unknown op, or arguments that it does not take;
      one line with the position in the string.
  """
  text = string.replace("\n", " ")
  start = len(text) - len(text.lstrip())
  try:
    node = ast.parse(text.strip(), mode="eval").body
  except SyntaxError as error:
    place = start + (error.offset or 1)
    raise ValueError(
      f"ops {string!r}: malformed at position {place}: {error.msg}"
    ) from None
  nodes: list[ast.expr] = []
  while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
    nodes.insert(0, node.right)
    node = node.left
  nodes.insert(0, node)
  return [_parse_op(each, string, start) for each in nodes]


def _parse_op(node: ast.expr, string: str, start: int):
  where = f"ops {string!r}: position {start + node.col_offset + 1}"
  call = node if isinstance(node, ast.Call) else None
  function = call.func if call else node
  if not isinstance(function, ast.Name):
    raise ValueError(f"{where}: expected an op, as in flip or resize(32)")
  name = function.id
  registry = _registry()
  if name not in registry:
    near = difflib.get_close_matches(name, registry, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
      f"{where}: no op {name!r}; {hint}valid: {', '.join(sorted(registry))}"
    )
  try:
    args = tuple(ast.literal_eval(a) for a in (call.args if call else ()))
    keywords = call.keywords if call else ()
    if any(k.arg is None for k in keywords):
      raise ValueError("** is not a literal")
    kwargs = {k.arg: ast.literal_eval(k.value) for k in keywords}
  except ValueError:
    raise ValueError(f"{where}: {name}: arguments are literals only") from None
  op = registry[name]
  signature = _signature(op)
  try:
    signature.bind(*args, **kwargs)
  except TypeError as error:
    raise ValueError(f"{where}: {name}{signature}: {error}") from None
  return name, args, kwargs


def _signature(op: _Op) -> inspect.Signature:
  """What may be written in the string, for binding and for messages."""
  parameters = [
    p.replace(annotation=inspect.Parameter.empty)
    for name, p in inspect.signature(op.function).parameters.items()
    if name not in _GIVEN
  ]
  if not op.whole:
    parameters += [
      inspect.Parameter(
        "inkey", inspect.Parameter.KEYWORD_ONLY, default="image"
      ),
      inspect.Parameter("outkey", inspect.Parameter.KEYWORD_ONLY, default=None),
    ]
  return inspect.Signature(parameters)


def compile(string: str) -> Callable[[Example, Any], Example]:
  """The ops of a string as one function (example, seed) -> example.

  `seed` is an int64 tensor [2]. The function runs eagerly and in tf.data, with
  the same result to the bit.
  """
  tf = import_tensorflow()
  steps = [
    (_OPS[name], name, args, kwargs) for name, args, kwargs in parse(string)
  ]

  def apply(example: Example, seed: Any) -> Example:
    for i, (op, name, args, kwargs) in enumerate(steps):
      try:
        # Its place in the string keeps one op's draws from another's.
        own = tf.random.experimental.stateless_fold_in(seed, i)
        example = _apply(op, example, own, args, kwargs)
      except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"op {name!r}: {reason}") from None
    return example

  return apply


def _apply(
  op: _Op, example: Example, seed: Any, args: tuple, kwargs: dict[str, Any]
) -> Example:
  if "seed" in inspect.signature(op.function).parameters:
    kwargs = {**kwargs, "seed": seed}
  if op.whole:
    return op.function(example, *args, **kwargs)
  kwargs = dict(kwargs)
  inkey = kwargs.pop("inkey", "image")
  outkey = kwargs.pop("outkey", None) or inkey
  if inkey not in example:
    raise ValueError(f"no field {inkey!r}; valid: {', '.join(example)}")
  value = op.function(example[inkey], *args, **kwargs)
  # A fence: tf.data must not regroup sums across ops, which eager does not.
  value = import_tensorflow().ensure_shape(value, value.shape)
  return {**example, outkey: value}
