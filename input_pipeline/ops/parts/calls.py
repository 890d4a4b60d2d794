"""The calls that a string of ops consists of, as written."""

import ast
from typing import Any, NamedTuple


class Call(NamedTuple):
  """An op as written in the string; `where` is its position, for errors."""

  name: str
  args: tuple
  kwargs: dict[str, Any]
  where: str


def calls(string: str) -> list[Call]:
  """The calls in the string, unchecked and without importing TensorFlow.

  Raises:
    ValueError: the string is malformed, or an argument is not a literal; one
      line with the position in the string.
  """
  if not isinstance(string, str):
    raise ValueError(f"ops {string!r} is not a string")
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
  return [_call(each, string, start) for each in nodes]


def _call(node: ast.expr, string: str, start: int) -> Call:
  where = f"ops {string!r}: position {start + node.col_offset + 1}"
  call = node if isinstance(node, ast.Call) else None
  function = call.func if call else node
  if not isinstance(function, ast.Name):
    raise ValueError(f"{where}: expected an op, as in flip or resize(32)")
  name = function.id
  try:
    args = tuple(ast.literal_eval(a) for a in (call.args if call else ()))
    keywords = call.keywords if call else ()
    if any(k.arg is None for k in keywords):
      raise ValueError("** is not a literal")
    kwargs = {k.arg: ast.literal_eval(k.value) for k in keywords}
  except ValueError:
    raise ValueError(f"{where}: {name}: arguments must be literals") from None
  return Call(name, args, kwargs, where)
