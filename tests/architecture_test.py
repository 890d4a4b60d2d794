"""Who may import whom, how long a file may be, and what must be said."""

import ast
import os
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("common", "models", "train", "input_pipeline", "configs")
SOURCES = sorted(
  path.relative_to(ROOT) for p in PACKAGES for path in (ROOT / p).rglob("*.py")
)
STDLIB = set(sys.stdlib_module_names)
HEAVY = {"jax", "flax", "optax", "orbax", "numpy", "matplotlib", "scipy"}
VERBS = sorted(
  ".".join(path.with_suffix("").parts).removesuffix(".__main__")
  for path in SOURCES
  if "cli.run(main" in (ROOT / path).read_text()
)

GENERIC = (
  "assembly build initialization loop run_data sharding trained types"
  " planning/analytic planning/compile_ahead planning/summary"
).split()

# Room -> what it may import beside itself, common, NumPy and the standard
# library. "data" is short for input_pipeline, "data." for what raw records are.
ARROWS = {
  "common": "absl fsspec jax matplotlib ml_collections",
  "configs": "ml_collections",
  "models": "flax jax qwix",
  "data.": "tensorflow",
  "data.reading": "data. PIL apache_beam brotli pyarrow pycocotools warcio"
  " yaml zstandard",
  "data.sources": "data. data.reading array_record datasets pyarrow soundfile"
  " tensorflow_datasets",
  "data.tokenizers": "data. data.reading data.sources jinja2 sentencepiece"
  " tokenizers",
  "data.ops": "data. data.reading data.tokenizers soxr tensorflow",
  "data.packing": "data. data.sources data.tokenizers",
  "data.rows": "data. data.ops data.packing data.reading data.sources"
  " data.tokenizers",
  "data.batching": "data. data.ops data.packing data.reading data.rows"
  " data.sources data.tokenizers jax",
  "data.similarity": "data. datasketch xxhash",
  "data.cleaning": "data. data.ops data.similarity data.sources"
  " data.tokenizers ftfy lxml opencc py3langid snowballstemmer stdnum"
  " trafilatura",
  "data.reporting": "data. data.batching data.ops data.reading data.tokenizers"
  " matplotlib",
  "data.preparation": "data. data.cleaning data.reading data.reporting"
  " data.tokenizers apache_beam array_record rich tensorflow"
  " tensorflow_datasets zstandard",
  # Label errors are found with the predictions of a model trained here.
  "data.quality": "data. data.batching data.reading data.reporting"
  " data.similarity data.sources cleanlab jax scipy sklearn train.build"
  " train.loop",
  # Small public data sets are files fetched; nothing here reads a source.
  "data.datasets": "PIL",
  "data verbs": "data absl",
  "train.types": "jax",
  "train.objectives": "train.types jax models.layers optax",
  "train.optimization": "train.types jax optax",
  "train.environments": "train.types jax",
  "train.learners": "train.types train.optimization jax optax",
  "train.adapters": "train.types train.optimization jax models",
  "train.tasks": "train.types train.objectives train.generation jax models",
  "train.evaluators": "train.types train.objectives data jax matplotlib"
  " pycocotools rouge_score sacrebleu",
  "train.hosts": "absl jax",
  "train.measuring": "jax pynvml",
  "train.checkpointing": "train.types train.hosts etils jax orbax tensorstore",
  "train.workdir": "train.checkpointing train.hosts jax matplotlib rich",
  "train.writers": "train.workdir.metrics matplotlib mlflow tensorboard wandb",
  "train.sharding": "train.types jax models.layers",
  "train.loop": "train.types train.checkpointing train.hosts train.measuring"
  " train.sharding train.compiler_options jax",
  "train.compiler_options": "train.types jax",
  "train.generation": "train.types train.trained absl data jax",
  "train.prediction": "train absl data jax PIL pyarrow",
  "train.serving": "train.generation train.prediction data starlette uvicorn",
  "train.conversions": "train data jax models safetensors",
  "train.planning": "train data jax libtpu rich",
  "train.doctor": "absl jax packaging",
  "train spine": "train data jax models",
  "train verbs": "train data absl jax",
}
SPINE = {
  f"train.{name}"
  for name in ("assembly", "build", "initialization", "run_data", "trained")
}


def module_name(path: pathlib.Path) -> str:
  return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> set[str]:
  """Every module that is imported, at the top or inside a function."""
  found = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if base.split(".")[0] in PACKAGES:
        found |= {f"{base}.{alias.name}" for alias in node.names}
      else:
        found.add(base)
  return {name for name in found if name.split(".")[0] not in STDLIB}


def allowed(name: str, choices: set[str]) -> bool:
  return any(name == c or name.startswith(f"{c}.") for c in choices)


def room(name: str) -> str:
  """The key of ARROWS that a module falls under."""
  top = name.split(".")[0]
  if name in ARROWS:
    return name
  if top not in ("train", "input_pipeline"):
    return top
  short = name.replace("input_pipeline", "data", 1)
  found = ".".join(short.split(".")[:2])
  if name in VERBS and found not in ARROWS:
    return "data verbs" if top == "input_pipeline" else "train verbs"
  if name in SPINE:
    return "train spine"
  return found if found in ARROWS else "data."


def may_import(name: str, choices: set[str]) -> bool:
  """Whether a module is among, or in, one of those that ARROWS names."""
  short = name.replace("input_pipeline", "data", 1)
  if short.startswith("data") and room(name) == "data.":
    return "data." in choices or "data" in choices
  return any(short == c or short.startswith(f"{c}.") for c in choices)


def modules() -> dict[str, ast.Module]:
  return {
    module_name(path): ast.parse((ROOT / path).read_text()) for path in SOURCES
  }


def test_no_import_but_those_of_the_design():
  wrong = []
  for name, tree in modules().items():
    if name in ("train", "input_pipeline"):
      continue
    own = room(name)
    choices = {
      "common",
      "numpy",
      own.removesuffix(" verbs"),
      *ARROWS[own].split(),
    }
    choices -= {"train", "data"} - set(ARROWS[own].split())
    for each in sorted(imports(tree)):
      if room(each) != own and not may_import(each, choices):
        wrong.append(f"{name} may not import {each}")
  assert not wrong, "\n".join(wrong)


def test_no_circles():
  """Between modules: what uses a type imports it from below."""
  known = modules()
  arrows = {
    name: {
      other
      for each in imports(tree)
      for other in (each, each.rpartition(".")[0])
      if other in known and other != name
    }
    for name, tree in known.items()
  }
  # A module of a package imports the package's own types from its __init__.
  while arrows:
    leaves = {n for n, others in arrows.items() if not others & arrows.keys()}
    assert leaves, f"circles among {sorted(arrows)}"
    arrows = {n: o for n, o in arrows.items() if n not in leaves}


def test_length_names_and_docstrings():
  wrong = []
  for path in SOURCES:
    text = (ROOT / path).read_text()
    if path.name in ("utils.py", "helpers.py"):
      wrong.append(f"{path}: say what is in it")
    if len(text.splitlines()) > 400:
      wrong.append(f"{path} passes 400 lines")
    tree = ast.parse(text)
    if not ast.get_docstring(tree):
      wrong.append(f"{path} has no docstring")
    if path.parts[:2] == ("train", "tasks") and len(text.splitlines()) > 120:
      wrong.append(f"{path}: a task passes 120 lines")
    wrong += [
      f"{path}: {node.name} has {own_lines(node)} lines"
      for node in ast.walk(tree)
      if isinstance(node, ast.FunctionDef)
      and node.name != "fit"
      and own_lines(node) > 60
    ]
  assert not wrong, "\n".join(wrong)


def test_generic_code_names_no_task_learner_or_field():
  """It reads the axes and units of leaves, see common/leaf.py."""
  fields = "image audio tokens inputs targets label boxes x y".split()
  named = {*fields, "classification", "language", "vision"}
  for room in ("tasks", "learners", "environments"):
    named |= {path.stem for path in (ROOT / "train" / room).glob("[a-z]*.py")}
  files = [f"train/{name}.py" for name in GENERIC]
  for room in ("checkpointing", "hosts", "measuring", "optimization"):
    files += [str(p) for p in SOURCES if p.parts[:2] == ("train", room)]
  for name in files:
    tree = ast.parse((ROOT / name).read_text())
    found = {
      node.value
      for node in ast.walk(tree)
      if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not found & named, name


def test_a_folder_holds_about_25_files():
  folders = {path.parent for path in SOURCES}
  folders |= {
    p.relative_to(ROOT).parent for p in (ROOT / "tests").rglob("*.py")
  }
  many = {
    str(folder): n
    for folder in folders
    if (n := len(list((ROOT / folder).glob("*.py")))) > 27
  }
  assert not many


def own_lines(node: ast.FunctionDef) -> int:
  """Lines of the body; a function defined inside counts for itself."""
  body = node.body[1:] if ast.get_docstring(node) else node.body
  inner = [
    n
    for n in ast.walk(node)
    if isinstance(n, ast.FunctionDef) and n is not node
  ]
  inside = {line for n in inner for line in range(n.lineno, n.end_lineno + 1)}
  lines = range(body[0].lineno, node.end_lineno + 1) if body else ()
  return len(set(lines) - inside)


def test_no_two_files_of_tests_share_a_name():
  """pytest would not collect the second one."""
  names = [path.name for path in (ROOT / "tests").rglob("*_test.py")]
  assert sorted(names) == sorted(set(names))


def test_a_config_says_its_command():
  for path in SOURCES:
    shared = path.name in ("__init__.py", "common.py") or "parts" in path.parts
    if path.parts[0] == "configs" and not shared:
      docstring = ast.get_docstring(ast.parse((ROOT / path).read_text()))
      given = (f"--config={path}", f"--config={path.stem}")
      assert any(name in docstring for name in given), path


def test_error_lines_install_from_the_checkout():
  """The name "tessera" on the package index is somebody else's project."""
  for folder in (*PACKAGES, "tests", "docs", "benchmarks", "tpu_scripts", "."):
    pattern = "*" if folder == "." else "**/*"
    for path in (ROOT / folder).glob(pattern):
      if path.is_file() and path.suffix in (".py", ".md", ".toml", ".html", ""):
        text = path.read_bytes()
        assert b"install tess" + b"era" not in text, path
        assert b"tess" + b"era[" not in text, path


def python(code: str) -> str:
  """What `code` prints in a fresh interpreter."""
  return subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    check=True,
  ).stdout


def test_help_needs_nothing_heavy():
  code = f"""
import importlib, os, sys
sys.argv = ["x", "--helpshort"]
from absl import app, flags
for verb in {VERBS}:
  if not os.fork():
    importlib.import_module(verb.replace("doctor", "doctor.__main__"))
    heavy = set(sys.modules) & {HEAVY | {"tensorflow", "apache_beam"}!r}
    if heavy:
      print(verb, heavy, flush=True)
    os._exit(0)
  os.wait()
"""
  assert python(code).strip() == ""


def test_help_answers_in_two_seconds():
  command = [sys.executable, "-m", "train.main", "--help"]
  best = min(
    _seconds(command) for _ in range(3)
  )  # the best of three: other tests run beside this one
  assert best < 2.0


def _seconds(command) -> float:
  start = time.perf_counter()
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert "--workdir" in done.stdout
  return time.perf_counter() - start


@pytest.mark.slow
def test_tensorflow_stays_out_of_a_step():
  code = """
import sys
import train.build, train.loop
from configs.language import lm_stdlib
config = lm_stdlib.get_config("smoke")
import tempfile
with tempfile.TemporaryDirectory() as workdir:
  list(train.loop.fit(train.build.run(config, workdir, say=lambda line: None)))
print("tensorflow" in sys.modules)
"""
  assert python(code).strip() == "False"
