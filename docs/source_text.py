"""What the reference pages read from the source: signatures and docstrings.

Nothing of the project is imported, so that pages about TensorFlow's ops or
Beam's stages are written on a machine that has neither.
"""

import ast
import functools
import inspect
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("common", "configs", "input_pipeline", "models", "train")
# Errors whose message reaches the user.
ERRORS = (
  "UserError",
  "ValueError",
  "HostError",
  "SaveError",
  "CorruptionError",
  "FloatingPointError",
)
_SECTION = re.compile(r"^(Args|Raises|Returns|Yields):$", re.MULTILINE)
_ENTRY = r"^  ?(\*{0,2}\w+): "


class Setting(NamedTuple):
  """An argument as a key of a config.

  default: as it is written; None where a value must be given.
  """

  name: str
  default: str | None
  meaning: str


class Function(NamedTuple):
  """A function or NamedTuple that a config names.

  path: of its file, from the root of the repository.
  text: its docstring up to the list of arguments.
  settings: its arguments, in order.
  decorators: their names.
  """

  name: str
  path: str
  text: str
  settings: list[Setting]
  decorators: tuple[str, ...]


@functools.cache
def parsed(path: str) -> ast.Module:
  """The syntax tree of a file, by its path from the root."""
  return ast.parse((ROOT / path).read_text())


def docstring(path: str) -> str:
  """The docstring of a file, or ""."""
  return ast.get_docstring(parsed(path)) or ""


def constant(path: str, name: str):
  """The literal that `name` is set to at the top of a file; None without it."""
  for node in parsed(path).body:
    targets = node.targets if isinstance(node, ast.Assign) else ()
    if isinstance(node, ast.AnnAssign):
      targets = (node.target,)
    if any(isinstance(t, ast.Name) and t.id == name for t in targets):
      return ast.literal_eval(node.value)
  return None


def files(package: str) -> list[str]:
  """The files that a config can name, below a folder such as "train/tasks".

  As in `common.names.discover`: folders called "parts", and those that the
  package names in SHARED, hold what is shared.
  """
  folder = ROOT / package
  shared = {"parts", *(constant(f"{package}/__init__.py", "SHARED") or ())}
  found = []
  for path in sorted(folder.iterdir()):
    if path.is_dir() and path.name not in shared:
      if (path / "__init__.py").exists():
        found += files(str(path.relative_to(ROOT)))
    elif path.suffix == ".py" and path.name != "__init__.py":
      found.append(str(path.relative_to(ROOT)))
  return found


def functions(path: str) -> Iterator[Function]:
  """The public functions and NamedTuples of a file, in order."""
  for node in parsed(path).body:
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
      yield _function(path, node)
    elif isinstance(node, ast.ClassDef):
      yield _named_tuple(path, node)


def function(path: str, name: str) -> Function:
  """One of `functions`.

  Raises:
    LookupError: the file has none of that name.
  """
  for each in functions(path):
    if each.name == name:
      return each
  raise LookupError(f"{path} has no function {name}")


def _function(path: str, node: ast.FunctionDef) -> Function:
  text, meanings = _parts(ast.get_docstring(node) or "")
  positional = [*node.args.posonlyargs, *node.args.args]
  lacking = [None] * (len(positional) - len(node.args.defaults))
  pairs = [
    *zip(positional, [*lacking, *node.args.defaults], strict=True),
    *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
  ]
  settings = [
    Setting(arg.arg, default and _source(default), meanings.get(arg.arg, ""))
    for arg, default in pairs
  ]
  if node.args.kwarg:
    name = f"**{node.args.kwarg.arg}"
    settings.append(Setting(name, "", meanings.get(name, "")))
  names = tuple(d.id for d in node.decorator_list if isinstance(d, ast.Name))
  return Function(node.name, path, text, settings, names)


def _named_tuple(path: str, node: ast.ClassDef) -> Function:
  text, _, fields = (ast.get_docstring(node) or "").partition("\n\n")
  meanings = _entries(f"\n{fields}", r"^(\w+): ")
  settings = [
    Setting(
      each.target.id,
      each.value and _source(each.value),
      meanings.get(each.target.id, ""),
    )
    for each in node.body
    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
  ]
  return Function(node.name, path, text, settings, ())


def _source(node: ast.expr) -> str:
  return ast.unparse(node)


def _parts(doc: str) -> tuple[str, dict[str, str]]:
  """(text before the sections, {argument: its meaning})."""
  pieces = _SECTION.split(doc)
  sections = dict(zip(pieces[1::2], pieces[2::2], strict=True))
  return pieces[0].strip(), _entries(sections.get("Args", ""), _ENTRY)


def _entries(text: str, pattern: str) -> dict[str, str]:
  """{name: what follows it} of "name: …" lines and those indented below."""
  pieces = re.compile(pattern, re.MULTILINE).split(text)
  return {
    name: " ".join(meaning.split())
    for name, meaning in zip(pieces[1::2], pieces[2::2], strict=True)
  }


def messages() -> Iterator[tuple[str, str]]:
  """(path, message) of every error raised; "…" stands for what is filled in."""
  for package in PACKAGES:
    for path in sorted((ROOT / package).rglob("*.py")):
      name = str(path.relative_to(ROOT))
      for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Call) and node.args:
          called = node.func
          title = called.id if isinstance(called, ast.Name) else ""
          title = called.attr if isinstance(called, ast.Attribute) else title
          if title in ERRORS:
            yield name, template(node.args[0])


def template(node: ast.expr) -> str:
  """A string as it is written, with "…" for what is filled in."""
  if isinstance(node, ast.Constant) and isinstance(node.value, str):
    return node.value
  if isinstance(node, ast.JoinedStr):
    return "".join(template(part) for part in node.values)
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
    return template(node.left) + template(node.right)
  return "…"


def paragraphs(text: str) -> list[str]:
  """The paragraphs of a docstring; indented ones keep their lines."""
  found = []
  for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
    if block.startswith("  ") or "\n  " in block:
      found.append(block)
    else:
      found.append(" ".join(block.split()))
  return found


def strings() -> set[str]:
  """Every string of the source, with "…" for what is filled in."""
  found = set()
  for package in PACKAGES:
    for path in sorted((ROOT / package).rglob("*.py")):
      for node in ast.walk(parsed(str(path.relative_to(ROOT)))):
        if isinstance(node, (ast.Constant, ast.JoinedStr)):
          found.add(template(node))
  return found
