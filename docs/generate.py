"""Writes docs/reference/ from the code: `python docs/generate.py`.

With --check nothing is written, and the exit code is 1 where a page is not what
the code says now. Needs the base installation alone.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import meanings  # noqa: E402  (after the path is set)
import source_text  # noqa: E402
import verb_flags  # noqa: E402
import zoo  # noqa: E402
from page_text import code, escaped, prose, settings, table  # noqa: E402

# Folder -> (page, title, arguments that a config does not set)
NAMED = {
  "models": ("models", "Models: `config.model`", ()),
  "train/tasks": ("tasks", "Tasks: `config.task`", ("model", "environment")),
  "train/environments": (
    "environments",
    "Environments: `config.data.source`",
    (),
  ),
  "train/learners": (
    "learners",
    "Learners: `config.learner`",
    ("task", "optimizer", "environment"),
  ),
  "train/evaluators": (
    "evaluators",
    "Evaluators: `config.evals.<key>`",
    ("context",),
  ),
  "train/adapters": ("adapters", "Adapters: `config.adapt`", ("model",)),
  "train/writers": (
    "writers",
    "Writers: `config.writers`",
    ("workdir", "config"),
  ),
  "input_pipeline/rows": (
    "rows",
    "Kinds of rows: `config.data.rows`",
    ("given",),
  ),
  "input_pipeline/sources": (
    "sources",
    "Sources: `config.data.source`",
    (),
  ),
  "input_pipeline/cleaning": (
    "stages",
    "Stages of `prepare`: `config.stages`",
    (),
  ),
}
# Folder -> (title, arguments that a config does not set)
WRAPPERS = {
  "train/tasks/wrap": ("`config.task.wrap`", ("task", "load")),
  "train/learners/wrap": ("`config.learner.wrap`", ("learner",)),
  "train/optimization/wrap": ("`config.optimizer.wrap`", ("optimizer",)),
}
_OPS = (
  "on_field",
  "on_picture",
  "on_picture_alone",
  "on_example",
  "on_pair",
)
_GIVEN_OPS = ("value", "example", "partner", "seed", "context")


def pages() -> dict[str, str]:
  """{file name in docs/reference: its content}."""
  found = {
    "config.md": config_page(),
    "verbs.md": verbs_page(),
    "exit_codes.md": exit_codes_page(),
    "workdir.md": workdir_page(),
    "model_zoo.md": zoo.zoo_page(),
    "ops.md": ops_page(),
    "tokenizers.md": tokenizers_page(),
    "wrappers.md": wrappers_page(),
  }
  for package, (name, title, given) in NAMED.items():
    if not (HERE.parent / package).exists():
      continue
    found[f"{name}.md"] = named_page(package, title, given)
  return {
    name: f"<!-- Written by docs/generate.py; do not edit. -->\n\n{text}"
    for name, text in found.items()
  }


def config_page() -> str:
  """Every key of a config, by section."""
  path = "common/config_keys.py"
  required = source_text.constant(path, "REQUIRED")
  defaults = source_text.constant(path, "DEFAULTS")
  rows = []
  for key in [*required, *defaults]:
    if key not in meanings.CONFIG:
      raise SystemExit(f"docs/meanings.py: CONFIG has no entry for {key!r}")
    default = code(repr(defaults[key])) if key in defaults else "required"
    rows.append((code(key), default, meanings.CONFIG[key]))
  parts = [
    "# Config keys\n",
    "A config is plain data. `--config.KEY=VALUE` on the command line sets one"
    " key, at any depth: `--config.model.dim=256`. An unknown key ends in one"
    " line that names the nearest valid one.\n",
    "## Top level\n",
    table(("key", "default", "meaning"), rows),
  ]
  for title, file, name, given in meanings.SECTIONS:
    function = source_text.function(file, name)
    parts += [f"## {title}\n", prose(function.text), settings(function, given)]
  axes = source_text.constant("train/sharding.py", "AXES")
  parts += [
    "## `config.mesh`\n",
    "Axis names and sizes; at most one size may be -1, which takes the devices"
    " that are left.\n",
    table(
      ("axis", "what it splits"),
      [(code(axis), meanings.AXES[axis]) for axis in axes],
    ),
    "## Schedules: `config.optimizer.schedule`\n",
    prose(source_text.docstring("train/optimization/schedules.py")),
  ]
  for each in source_text.functions("train/optimization/schedules.py"):
    if [s.name for s in each.settings][:1] == ["lr"]:
      parts += [
        f"### `{each.name}`\n",
        prose(each.text),
        settings(each, ("lr", "total_steps", "warmup_steps")),
      ]
  return "\n".join(parts)


def named_page(package: str, title: str, given) -> str:
  """What a config can name in a folder: one section a file."""
  return "\n".join([f"# {title}\n", *_named(package, given, "##")])


def wrappers_page() -> str:
  """Every wrapper, by the section whose key "wrap" names it."""
  parts = [
    "# Wrappers: `wrap` of a section\n",
    "`config.task`, `config.learner` and `config.optimizer` each take a list"
    " `wrap` of sections such as `dict(name=FILE, KEY=VALUE)`, which are"
    " applied in order: the last one is the outermost.\n",
  ]
  for package, (title, given) in WRAPPERS.items():
    parts += [f"## {title}\n", *_named(package, given, "###")]
  return "\n".join(parts)


def _named(package: str, given, heading: str) -> list[str]:
  """The parts of a page about the files of a folder, after its sentence."""
  parts = [prose(source_text.docstring(f"{package}/__init__.py"))]
  for path in source_text.files(package):
    stem = pathlib.Path(path).stem
    found = [f for f in source_text.functions(path) if f.name == stem]
    for each in found:
      about = prose(each.text or source_text.docstring(path))
      parts += [f"{heading} `{stem}`\n", f"`{path}`\n", about]
      # What follows a source's colon is its own; the text describes it.
      if package != "input_pipeline/sources":
        parts.append(settings(each, given))
  return parts


def ops_page() -> str:
  """Every preprocessing op."""
  parts = [
    "# Preprocessing ops: `config.data.ops`\n",
    prose(source_text.docstring("input_pipeline/ops/__init__.py")),
  ]
  for path in source_text.files("input_pipeline/ops"):
    ops = [
      each
      for each in source_text.functions(path)
      if set(each.decorators) & set(_OPS)
    ]
    if ops:
      parts += [f"## `{path}`\n", prose(source_text.docstring(path))]
    for op in ops:
      parts += [f"### `{op.name}`\n", prose(op.text), settings(op, _GIVEN_OPS)]
  return "\n".join(parts)


def tokenizers_page() -> str:
  """Every tokenizer, with the strings that ask for it."""
  folder = "input_pipeline/tokenizers"
  parts = [
    "# Tokenizers: `config.data.tokenizer`\n",
    prose(source_text.docstring(f"{folder}/__init__.py")),
  ]
  for path in source_text.files(folder):
    forms = source_text.constant(path, "FORMS") or ()
    parts += [
      f"## `{pathlib.Path(path).stem}`\n",
      " · ".join(code(form) for form in forms) + "\n" if forms else "",
      prose(source_text.docstring(path)),
    ]
  return "\n".join(parts)


def verbs_page() -> str:
  """Every verb with all of its flags."""
  parts = [
    "# Verbs\n",
    "A verb is a module that `python -m` runs. `--help` lists the same flags;"
    " `--config.KEY=VALUE` works wherever `--config` does.\n",
  ]
  for verb in verb_flags.verbs():
    text = source_text.docstring(verb_flags.path_of(verb))
    rows = [
      (code(f"--{f.name}"), f.kind, code(f.default), escaped(f.help))
      for f in verb_flags.flags_of(verb)
    ]
    parts += [
      f"## `python -m {verb}`\n",
      prose(text),
      table(("flag", "type", "default", "help"), rows),
    ]
  return "\n".join(parts)


def exit_codes_page() -> str:
  """Exit codes, those of errors from their classes."""
  path = "common/errors.py"
  found = dict(meanings.EXIT_CODES)
  for each in source_text.parsed(path).body:
    codes = [
      node.value.value
      for node in getattr(each, "body", ())
      if getattr(getattr(node, "targets", [None])[0], "id", "") == "code"
    ]
    for number in codes:
      if number not in found:
        raise SystemExit(f"docs/meanings.py: EXIT_CODES lacks {number}")
  return "\n".join(
    [
      "# Exit codes\n",
      table(
        ("code", "meaning", "what to do"),
        [(number, *texts) for number, texts in sorted(found.items())],
      ),
    ]
  )


def workdir_page() -> str:
  """The files of a workdir and the keys of metrics.jsonl."""
  files = source_text.constant("train/workdir/__init__.py", "FILES")
  from train.measuring import timing

  rows = []
  for key in timing.CLOCK_KEYS:
    if key not in meanings.METRICS:
      raise SystemExit(f"docs/meanings.py: METRICS has no entry for {key!r}")
    rows.append((code(key), meanings.METRICS[key]))
  return "\n".join(
    [
      "# Files of a workdir\n",
      "A workdir holds no code. Evaluators may write further files, whose names"
      " begin with the evaluator's key.\n",
      table(
        ("file", "what it holds"),
        [(code(name), text) for name, text in files.items()],
      ),
      "## Keys of `metrics.jsonl`\n",
      "`step`, `train/<metric>` from the task and the learner, and"
      " `<key>/<metric>` from the evaluator `config.evals.<key>`, are the same"
      " in every run of one config. The following describe time and machine.\n",
      table(("key", "meaning"), rows),
    ]
  )


def main() -> int:
  """Writes the pages, or compares them; returns the exit code."""
  folder = HERE / "reference"
  folder.mkdir(exist_ok=True)
  found = pages()
  there = {path.name for path in folder.glob("*.md")}
  stale = sorted(
    name
    for name in there | set(found)
    if not (folder / name).exists()
    or (folder / name).read_text() != found.get(name)
  )
  if "--check" in sys.argv[1:]:
    for name in stale:
      print(f"docs/reference/{name} is stale: run python docs/generate.py")
    return 1 if stale else 0
  for name in stale:
    path = folder / name
    if name in found:
      path.write_text(found[name])
    else:
      path.unlink()
    print(f"wrote docs/reference/{name}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
