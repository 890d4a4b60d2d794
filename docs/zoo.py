"""The page of the model zoo: a row for each experiment."""

import importlib
import pathlib
import re

import source_text
from page_text import code, escaped, table

_FIGURE = re.compile(
  r"\b(Measured|Expected|Not measured|Not trained|Trained in|measures:)"
)


def zoo_page() -> str:
  """A row for each experiment, out of its docstring and its config."""
  parts = ["# Model zoo\n"]
  parts.append(
    "Every experiment in `configs/`, from its docstring. A name such as"
    " `lm_stdlib` is enough after `--config=`; `lm_stdlib:smoke` is the same"
    " experiment made tiny, on generated data. `benchmarks/RESULTS.md` lists"
    " the commands and conditions of the figures.\n"
  )
  for folder in sorted({p.split("/")[1] for p in _configs()}):
    rows = []
    for path in _configs():
      if path.split("/")[1] == folder:
        rows.append(_zoo_row(path))
    title = source_text.docstring(f"configs/{folder}/__init__.py")
    parts += [
      f"## {title.rstrip('.')}\n",
      table(("config", "experiment", "data", "command", "figure"), rows),
    ]
  return "\n".join(parts)


def _configs() -> list[str]:
  """The experiments: files of configs/, but not the recipes of `prepare`."""
  return [
    path
    for path in source_text.files("configs")
    if pathlib.Path(path).stem != "common"
    and not path.startswith("configs/data/")
  ]


def _zoo_row(path: str) -> tuple[str, ...]:
  stem = pathlib.Path(path).stem
  config = importlib.import_module(
    path.removesuffix(".py").replace("/", ".")
  ).get_config("")
  data = config.data.get("source") or [
    part["source"] for part in config.data.get("mixture", ())
  ]
  sources = [data] if isinstance(data, str) else data
  text = source_text.docstring(path)
  title = text.split("\n", 1)[0].rstrip(".")
  figure = _figure(text)
  if not figure:
    raise SystemExit(f"{path}: the docstring says no figure: 'Measured …'")
  command = re.search(
    rf"python -m train\.main --config={path}(.*?)(?=\n\n|$)", text, re.DOTALL
  )
  rest = " ".join(command[1].replace("\\", " ").split()) if command else ""
  rest = re.split(r" python (?:-m|bench)", f" {rest}")[0].strip()
  return (
    code(stem),
    escaped(title),
    "<br>".join(map(code, sources)),
    code(f"python -m train.main --config={stem} {rest}".strip()),
    escaped(figure),
  )


def _figure(text: str) -> str:
  """The sentences of a docstring that say what was measured or is expected."""
  for block in source_text.paragraphs(text):
    start = _FIGURE.search(block)
    if start and "\n" not in block:
      return block[start.start() :].replace("measures:", "Measured:", 1)
  return ""
