"""What a stranger, a kill or a bad disk may have put into a workdir."""

import ast
import json
import os
import pathlib
import shutil
import subprocess
import sys

import forkserver
import pytest

from common import bounded_file, json_lines
from common.errors import SaveError, UserError
from input_pipeline import sources, tokenizers
from input_pipeline.tokenizers import char, sentencepiece
from train import build, loop, trained
from train.measuring import goodput
from train.workdir import curves, metrics, run_record

ROOT = pathlib.Path(__file__).parents[3]
SOURCES = [
  path
  for folder in ("models", "train", "input_pipeline", "configs", "benchmarks")
  for path in (ROOT / folder).rglob("*.py")
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A run of three steps, to be copied."""
  from configs.textbook import linear_regression

  config = linear_regression.get_config("smoke")
  config.total_steps = 3
  config.log_every_steps = 1
  workdir = tmp_path_factory.mktemp("finished")
  list(loop.fit(build.run(config, str(workdir), say=lambda line: None)))
  return workdir


@pytest.fixture
def workdir(finished, tmp_path):
  return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def refused(workdir) -> str:
  with pytest.raises(UserError) as caught:
    trained.load(str(workdir))
  line = str(caught.value)
  assert str(workdir) in line and len(line) < 1000
  return line


def changed(path: pathlib.Path, *keys, value):
  """Sets one value of a JSON file; `keys` lead to it."""
  root = json.loads(path.read_text())
  holder = root
  for key in keys[:-1]:
    holder = holder[key]
  holder[keys[-1]] = value
  path.write_text(json.dumps(root))


CONFIGS = [
  (("total_steps",), "many", "config.total_steps='many'"),
  (("total_steps",), 10**30, "config.total_steps=1000"),
  (("log_every_steps",), 0, "config.log_every_steps=0"),
  (("seed",), None, "config.seed=None"),
  (("model",), 3, "config.model=3: not a section"),
  (("model", "name"), "../x", "models has no '../x'"),
  (("model", "name"), ["x"], "config.model.name"),
  (("task", "name"), "__init__", "config.task.name"),
  (("optimizer", "name"), "__builtins__", "config.optimizer"),
  (("optimizer", "name"), 7, "config"),
  (("model", "hidden"), "wide", "config"),
  (("mesh",), [1], "config.mesh=[1]: not a section"),
  (("mesh",), {"data": "x"}, "config.mesh.'data'='x'"),
  (("evals",), {"../../x": {"name": "mean"}}, "config.evals: '../../x'"),
  (("evals",), {"a/b": {"name": "mean"}}, "config.evals: 'a/b'"),
  (("evals",), {"x\n": {"name": "mean"}}, "config.evals"),
  (("evals",), {"val": 3}, "config.evals.val=3"),
  (("sharding",), "all", "config.sharding='all'"),
  (("data", "tokenizer"), "sentencepiece:../../x", "tokenizer.model: No such"),
  (("data", "tokenizer"), "char", "tokenizer.json: No such"),
  (("data", "tokenizer"), ["byte"], "tokenizer ['byte'] is unknown"),
  (("unknown",), 1, "config.unknown: unknown"),
]


@pytest.mark.parametrize(("keys", "value", "said"), CONFIGS, ids=str)
def test_a_config_that_no_run_was_made_of(keys, value, said, workdir):
  changed(workdir / "config.json", *keys, value=value)
  assert said in refused(workdir)


FACTS = [
  (("spec",), [1]),
  (("spec", "x"), [[4], "O"]),
  (("spec", "x"), [[4], "float64"]),
  (("spec", "x"), [[4], ["a", "i4"]]),
  (("spec", "x"), [[4], "(1000000000,)f4"]),
  (("spec", "x"), [[-4], "float32"]),
  (("spec", "x"), [[2**39, 2], "float32"]),
  (("spec", "x"), ["44", "float32"]),
  (("spec", "x"), 4),
  (("batch_size",), 0),
  (("batch_size",), 2**31),
  (("batch_size",), True),
  (("batch_size",), 1e30),
  (("num_classes",), 2**60),
  (("num_classes",), "ten"),
  (("num_examples",), None),
]


@pytest.mark.parametrize(("keys", "value"), FACTS, ids=str)
def test_facts_of_no_data(keys, value, workdir):
  changed(workdir / "data.json", *keys, value=value)
  assert "data.json: damaged" in refused(workdir)


CONTENTS = {
  "empty": (b"", "not JSON"),
  "cut": (b'{"a": 1', "not JSON"),
  "bytes": (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
  "a list": (b"[1, 2]", "not a JSON object"),
  "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too"),
  "rather deep": (b'{"a":' * 65 + b"1" + b"}" * 65, "nested too deep"),
  "many digits": (b'{"a": ' + b"9" * 10_000 + b"}", "digits"),
}


@pytest.mark.parametrize("file", ["config.json", "data.json"])
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_no_json_object(content, file, workdir):
  written, said = CONTENTS[content]
  (workdir / file).write_bytes(written)
  line = refused(workdir)
  assert said in line and file in line and "\n" not in line


@pytest.mark.parametrize("file", ["config.json", "data.json"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing", "link"])
def test_what_is_no_file(kind, file, workdir, tmp_path):
  path = workdir / file
  kept = path.read_bytes()
  path.unlink()
  if kind == "folder":
    path.mkdir()
  if kind == "pipe":
    os.mkfifo(path)
  if kind == "link":
    (tmp_path / "elsewhere").write_bytes(kept)
    path.symlink_to(tmp_path / "elsewhere")
    assert f"{path} is a symbolic link" in refused(workdir)
  else:
    assert f"no {file}, so this is not the workdir of a run" in refused(workdir)


def test_a_large_file_is_not_read(workdir, tmp_path):
  """A sparse gigabyte, within 200 MB more than the process has."""
  code = """
import resource, sys
from common import json_lines
from train.workdir import run_record
from common.errors import SaveError, UserError
from input_pipeline import tokenizers
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (
  lambda: run_record.read_config(sys.argv[1]),
  lambda: tokenizers.kept("char", sys.argv[1]),
  lambda: tokenizers.kept("sentencepiece?", sys.argv[1]),
):
  try:
    read()
  except ValueError as error:
    print(error)
rows = json_lines.read(sys.argv[1] + "/config.json")
print(sum(row is None for _, row in rows))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
  for name in ("config.json", "tokenizer.json", "tokenizer.model"):
    with open(workdir / name, "wb") as file:
      file.truncate(2**30)
  done = subprocess.run(
    [sys.executable, "-c", code, str(workdir)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  *lines, rows, kilobytes = done.stdout.splitlines()
  for line, name in zip(
    lines, ["config.json", "tokenizer.json", "tokenizer.model"], strict=True
  ):
    assert f"{workdir / name}: 1,073,741,824 bytes, more than the limit" in line
  assert int(rows) == 1024  # a damaged MiB each
  assert int(kilobytes) < 200_000


def test_a_workdir_may_itself_be_a_link(workdir, tmp_path):
  (tmp_path / "link").symlink_to(workdir)
  assert trained.load(str(tmp_path / "link")).step == 3
  # And its checkpoints: on a larger disk.
  shutil.move(workdir / "checkpoints", tmp_path / "large")
  (workdir / "checkpoints").symlink_to(tmp_path / "large")
  assert trained.load(str(workdir)).step == 3


@pytest.mark.parametrize(
  "name",
  [
    "goodput.jsonl",
    "metrics.jsonl",
    "metrics.tmp",
    "config.tmp",
    "curves.png",
    "val_confusion.csv",
    "samples",
    "samples/val_0000003.txt",
  ],
)
def test_no_name_leads_out_of_the_workdir(name, workdir, tmp_path):
  outside = tmp_path / "outside"
  outside.mkdir()
  (outside / "file").write_text("precious")
  path = workdir / name
  path.parent.mkdir(exist_ok=True)
  path.unlink(missing_ok=True)
  path.symlink_to(outside if name == "samples" else outside / "file")
  assert f"{path} is a symbolic link" in refused(workdir)
  config = run_record.read_config(str(workdir))
  with pytest.raises(UserError, match="is a symbolic link"):
    build.run(config, str(workdir))
  assert [p.name for p in outside.iterdir()] == ["file"]
  assert (outside / "file").read_text() == "precious"
  assert not (workdir / "run.lock").exists()


def test_what_is_written_goes_through_no_link(tmp_path):
  """Even where nobody looked before."""
  (tmp_path / "file").write_text("precious")
  inside = tmp_path / "run"
  inside.mkdir()
  for name in ("config.tmp", "metrics.tmp"):
    (inside / name).symlink_to(tmp_path / "file")
  run_record._write(inside / "config.json", {"a": 1})
  rows = metrics.files(str(inside))
  rows.start(None)
  rows.write(1, {"a": 1.0})
  rows.close()
  assert (tmp_path / "file").read_text() == "precious"
  assert run_record.read_config(str(inside)) == {"a": 1}
  assert not (inside / "metrics.jsonl").is_symlink()


ROWS = [
  b"",
  b"\0" * 100,
  b"\xff\xfe",
  b"[1]",
  b"3",
  b"[" * 100_000,
  b'{"step": "x"}',
  b'{"step": true}',
  b'{"step": -1}',
  b'{"step": 1e3}',
  b'{"loss": 1}',
  b'{"step": 1' + b"0" * 5000 + b"}",
  b'{"event": "start"}',
  b'{"time": 1, "event": "lunch"}',
  b'{"time": 1, "event": ["start"]}',
  b'{"time": "1", "event": "beat"}',
  b'{"time": NaN, "event": "beat"}',
  b'{"time": 1e999, "event": "beat"}',
  b'{"time": 1, "event": "beat", "seconds": [1]}',
  b'{"time": 1, "event": "beat", "seconds": {"lunch": 1}}',
  b'{"time": 1, "event": "beat", "seconds": {"step": "1"}}',
  b'{"time": 1, "event": "save", "step": null}',
  b'{"time": 1, "event": "save"}',
  b'{"time": 1, "event": "resume"}',
  b'{"time": 1, "event": "save", "step": [2]}',
  b'{"time": 1, "event": "beat", "energy_kwh": {}}',
  b"x" * 2**21,
]


def test_damaged_rows_are_left_out(workdir):
  path = workdir / "metrics.jsonl"
  good = path.read_bytes().splitlines()
  mixed = [row for pair in zip(ROWS, good * 20, strict=False) for row in pair]
  kept = [row for row in mixed[1::2] if json.loads(row)["step"] <= 2]
  path.write_bytes(b"\n".join(mixed) + b'\n{"step": 1, "cut')
  assert len(metrics.read_metrics(str(workdir))) == len(ROWS)
  rows = metrics.files(str(workdir))
  rows.start(2)
  rows.close()
  assert path.read_bytes().splitlines() == kept


def test_figures_that_are_none_are_left_out(workdir):
  (workdir / "metrics.jsonl").write_text(
    '{"step": 1, "a/loss": 2, "b/loss": "x", "c/loss": null, "d": [1],'
    f' "e": {10**400 // 7}, "f/loss": NaN, "g": true}}\n'
  )
  (row,) = metrics.read_metrics(str(workdir))
  assert sorted(row) == ["a/loss", "f/loss", "step"]
  assert curves.draw_curves(str(workdir))


def test_damaged_rows_of_a_ledger_are_left_out(workdir):
  path = workdir / "goodput.jsonl"
  good = path.read_bytes().splitlines()
  before = goodput.summary(goodput.read(path))
  assert before["goodput"] > 0
  # Wherever they stand.
  path.write_bytes(b"\n".join([*ROWS, *good[:3], *ROWS, *good[3:], *ROWS, b""]))
  assert goodput.summary(goodput.read(path)) == before


def test_a_resumed_run_goes_on_over_damaged_rows(workdir):
  for name in ("metrics.jsonl", "goodput.jsonl"):
    with open(workdir / name, "ab") as file:
      file.write(b"\n".join(ROWS))
  config = run_record.read_config(str(workdir)) | {"total_steps": 5}
  list(loop.fit(build.run(config, str(workdir), say=lambda line: None)))
  steps = [row["step"] for row in metrics.read_metrics(str(workdir))]
  assert steps[-1] == 5 and sorted(steps) == steps


@pytest.mark.parametrize("name", ["metrics.jsonl", "goodput.jsonl"])
def test_rows_that_are_no_file(name, workdir):
  (workdir / name).unlink()
  os.mkfifo(workdir / name)
  with pytest.raises(UserError, match=f"{name}: not a regular file"):
    list(json_lines.read(workdir / name))
  config = run_record.read_config(str(workdir))
  with pytest.raises(UserError, match=f"{name} is not a file"):
    build.run(config, str(workdir))


CHARACTERS = [
  b"",
  b"[]",
  b'{"characters": 3}',
  b'{"characters": ["a", "b"]}',
  b'{"characters": ""}',
  b'{"characters": "ba"}',
  b'{"characters": "aa"}',
  b'{"characters": "\\ud800"}',
  b'{"characters": "\xff"}',
  b"[" * 100_000,
]


@pytest.mark.parametrize("content", CHARACTERS, ids=lambda c: repr(c[:30]))
def test_a_vocabulary_that_is_none(content, tmp_path):
  (tmp_path / "tokenizer.json").write_bytes(content)
  with pytest.raises(ValueError, match="tokenizer.json"):
    tokenizers.kept("char", str(tmp_path))


def test_a_sentencepiece_that_is_no_model(tmp_path):
  pytest.importorskip("sentencepiece")
  for content in (b"", b"\0" * 1000, os.urandom(3000), b"\x0a\xff\xff\xff\x0f"):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(
      ValueError, match="tokenizer.model: tokenizer .* is not"
    ):
      tokenizers.kept("sentencepiece:x", str(tmp_path))


def test_a_tokenizer_is_read_from_the_workdir_alone(tmp_path, monkeypatch):
  """Not learned, not read from the path that its name tells."""
  (tmp_path / "x").write_bytes(b"")
  for module in (char, sentencepiece):
    monkeypatch.setattr(module, "open_source", None)
  for spec in (f"sentencepiece:{tmp_path / 'x'}", "sentencepiece?", "char"):
    with pytest.raises(ValueError, match="/tokenizer.*No such file"):
      tokenizers.kept(spec, str(tmp_path))
  assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
  "name",
  [
    "../../x",
    "/etc/x",
    "mnist/../../x",
    "huggingface:mnist",
    "kaggle:x/y",
    "mnist:1.0.0/../..",
    "mnist/x=1",
    "",
    "~/x",
  ],
)
def test_a_name_of_tfds_is_no_path_and_no_stranger_s(name):
  with pytest.raises(ValueError, match="is not NAME or NAME/CONFIG"):
    sources.open_source(f"tfds:{name}?data_dir=/nowhere")


@pytest.mark.parametrize(
  "name",
  ["mnist", "mnist:3.0.1", "glue/sst2:2.0.0", "wikipedia/20230601.en:1.*.*"],
)
def test_a_name_of_tfds_passes(name, monkeypatch):
  from input_pipeline.sources import tfds

  def reached():
    raise ValueError("reached")

  monkeypatch.setattr(tfds, "_import", reached)
  with pytest.raises(ValueError, match="reached"):
    sources.open_source(f"tfds:{name}")


def test_caches_of_the_one_who_trained_are_not_written(workdir, tmp_path):
  changed(
    workdir / "config.json", "data", "cache_dir", value=str(tmp_path / "c")
  )
  found = trained.load(str(workdir))
  assert "cache_dir" not in found.parts.config["data"]
  build.evaluators(found, str(workdir))
  assert not (tmp_path / "c").exists()


def test_a_file_read_up_to_its_limit(tmp_path):
  path = tmp_path / "file"
  path.write_bytes(b"12345")
  assert bounded_file.read(path, 5) == b"12345"
  with pytest.raises(
    ValueError, match="file: 5 bytes, more than the limit of 4"
  ):
    bounded_file.read(path, 4)
  with pytest.raises(ValueError, match="/dev/zero: not a regular file"):
    bounded_file.read("/dev/zero", 4)
  with pytest.raises(ValueError, match="null"):
    bounded_file.read("a\0b", 4)


def test_the_line_holds_no_command_of_a_terminal(workdir):
  changed(workdir / "config.json", "model", "name", value="x\n\x1b[2Jy\ud800")
  done = subprocess.run(
    [sys.executable, "-m", "train.evaluate", f"--workdir={workdir}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.count("\n") == 1 and "\x1b" not in done.stderr
  assert r"models has no" in done.stderr


@pytest.mark.parametrize("verb", ["evaluate", "generate"])
def test_a_workdir_that_is_a_file(verb, tmp_path):
  path = tmp_path / "file"
  path.write_text("")
  done = forkserver.run(
    [sys.executable, "-m", f"train.{verb}", f"--workdir={path}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr == (
    f"error: {path}: no config.json, so this is not the workdir of a run\n"
  )


@pytest.mark.slow
def test_a_disk_that_fills_up_in_mid_run_is_one_line(tmp_path):
  code = """
import resource, sys
config = "configs/textbook/linear_regression.py:smoke"
sys.argv = ["main", f"--config={config}", *sys.argv[1:]]
from common import cli
from train import main
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
sys.exit(cli.run(main.main))
"""
  done = subprocess.run(
    [sys.executable, "-c", code, f"--workdir={tmp_path}"],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": "", "TESSERA_CACHE": str(tmp_path / "c")},
    capture_output=True,
    text=True,
  )
  assert done.returncode == SaveError.code, done.stderr
  assert "Traceback" not in done.stderr
  last = done.stderr.splitlines()[-1]
  assert last.startswith("error: ") and "File too large" in last


FORBIDDEN = {
  "eval",
  "exec",
  "compile",
  "__import__",
  "pickle",
  "cPickle",
  "dill",
  "cloudpickle",
  "joblib",
  "marshal",
  "shelve",
  "yaml.load",
  "yaml.unsafe_load",
}


def spoken(node: ast.AST) -> str:
  """ "a.b" of such an expression."""
  if isinstance(node, ast.Attribute):
    return f"{spoken(node.value)}.{node.attr}"
  return node.id if isinstance(node, ast.Name) else ""


def runs_code(tree: ast.AST) -> list[str]:
  """What could run code that a file holds: imports and calls."""
  found = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found += [a.name for a in node.names if a.name in FORBIDDEN]
    if isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN:
      found.append(node.module)
    if not isinstance(node, ast.Call):
      continue
    name = spoken(node.func)
    if name in FORBIDDEN or name.partition(".")[0] in FORBIDDEN:
      found.append(name)
    for keyword in node.keywords:
      if keyword.arg == "allow_pickle":
        value = keyword.value
        if not (isinstance(value, ast.Constant) and value.value is False):
          found.append("allow_pickle")
  return found


@pytest.mark.parametrize(
  "code",
  [
    "import pickle",
    "from pickle import loads",
    "eval('1')",
    "exec(x)",
    "np.load(p, allow_pickle=True)",
    "np.load(p, allow_pickle=flag)",
    "yaml.load(f)",
    "import shelve",
    "marshal.loads(b)",
  ],
)
def test_the_search_for_code_finds_it(code):
  assert runs_code(ast.parse(code))


@pytest.mark.parametrize(
  "code", ["np.load(p)", "jax.eval_shape(f)", "re.compile(p)", "model.eval(x)"]
)
def test_the_search_for_code_finds_no_more(code):
  assert not runs_code(ast.parse(code))


def test_nothing_runs_code_that_a_file_holds():
  assert len(SOURCES) > 100
  wrong = {
    str(path.relative_to(ROOT)): found
    for path in SOURCES
    if (found := runs_code(ast.parse(path.read_text())))
  }
  assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("files", [150])
def test_files_spoiled_at_random(files, tmp_path):
  """The same as benchmarks/faults/fuzz_workdir.py does by thousands."""
  done = subprocess.run(
    [sys.executable, "benchmarks/faults/fuzz_workdir.py", f"--files={files}"],
    cwd=ROOT,
    env={
      **os.environ,
      "PYTHONPATH": str(ROOT),
      "XLA_FLAGS": "",
      "TMPDIR": str(tmp_path),
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
  counts = [
    [int(n) for n in line.split()[1:]]
    for line in done.stdout.splitlines()
    if line.startswith(("config.", "data.", "goodput.", "metrics.", "token"))
  ]
  tried, accepted, refused, failed = map(sum, zip(*counts, strict=True))
  assert (tried, failed) == (files, 0)
  assert min(accepted, refused) > files // 10
