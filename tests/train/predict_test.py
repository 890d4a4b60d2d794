"""train.predict: new data without labels, of every kind of prediction."""

import csv
import io
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from common import leaf
from common.errors import UserError
from configs.tabular import adult
from configs.text import cls_labeled, ner_wnut17, qa_newwiki
from configs.vision.classification import conv_fashion_mnist
from input_pipeline.rows.parts import word_features
from train import assembly, build, loop, predict, trained, types
from train.objectives import span_f1
from train.prediction import Context, Piece
from train.prediction.logits import logits
from train.prediction.parts import (
  picture_flags,
  preparation,
  records,
  table,
  vectors,
)

RNG = np.random.default_rng(0)
TABLE = {
  "area": RNG.uniform(20, 200, 24),
  "kind": RNG.choice(["flat", "house"], 24),
}
TABLE["price"] = 1000 * TABLE["area"] + 300 * RNG.normal(size=24)
HOUSES = {"rows": {"name": "columns", "label": "kind", "scaling": "z_score"}}
PRICES = {"rows": {"name": "columns", "target": "price", "scale_target": True}}
WORDS = "Ada lived in London".split()


def write_table(path, columns):
  rows = zip(*columns.values(), strict=True)
  lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
  path.write_text("\n".join(lines) + "\n")
  return f"csv:{path}"


def write_lines(path, found):
  path.write_text("".join(json.dumps(each) + "\n" for each in found))
  return f"jsonl:{path}"


def configured(config, source, **data):
  config.total_steps = 0
  config.mesh = dict(data=1, tensor=-1)
  config.early_stopping = {}
  config.checkpoint = dict(every_steps=10, keep=1)
  config.evals = {}
  config.data.update(source=source, split="all", **data)
  return config


def run_of(workdir, config, **predict):
  """A run with random parameters, or whose predictions are given."""
  parts = assembly.experiment(config, workdir)
  if predict:
    parts = parts._replace(task=types.Task(None, {}, predict))
    return trained.Trained(parts, types.Variables({}, {}), 0)
  batch = leaf.arrays(parts.data.spec, 8, jnp.zeros)
  shapes = jax.eval_shape(parts.task.init, jax.random.key(0), batch)
  variables = jax.tree.map(
    lambda x: RNG.normal(size=x.shape).astype(x.dtype), shapes
  )
  return trained.Trained(parts, variables, 0)


def predicted(workdir, found, source, batch=8, top=1, said=None, **data):
  say = [] if said is None else said
  wanted = preparation.Wanted(
    "--source", {"source": source, "split": "all", **data}, batch, top
  )
  made = records.predicted(found, workdir, wanted, say.append)
  return list(made.records)


def table_run(tmp_path, **data):
  config = adult.get_config("smoke")
  config.model = dict(name="mlp", hidden=(3,), activation="identity")
  del config.data["rows"]
  if "target" in data["rows"]:
    config.task = dict(name="regression")
  source = write_table(tmp_path / "table.csv", TABLE)
  workdir = str(tmp_path / "a [b] c")
  return workdir, run_of(workdir, configured(config, source, **data))


def linear(found, x):
  """The outputs of two linear layers with the run's parameters."""
  for layer in found.variables.params["layers"].values():
    x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
  return x


def test_classes_of_a_table_are_numpys(tmp_path):
  run = table_run(tmp_path, **HOUSES)
  new = {"price": [4e4, 1e5, 2e5], "area": [30.0, 110.0, 190.0]}
  source = write_table(tmp_path / "new.csv", new)
  got = predicted(*run, source, top=2)
  assert [each["record"] for each in got] == [
    f"{tmp_path}/new.csv:{line}" for line in (2, 3, 4)
  ]
  x = np.stack(
    [(new[k] - TABLE[k].mean()) / TABLE[k].std() for k in ("area", "price")], 1
  )
  e = np.exp(linear(run[1], x))
  for each, p in zip(got, e / e.sum(1, keepdims=True), strict=True):
    order = np.argsort(-p)
    names = [("flat", "house")[i] for i in order]
    assert [each["label"], each["label_2"]] == names
    found = [each["probability"], each["probability_2"]]
    np.testing.assert_allclose(found, p[order], atol=1e-5)
  assert predicted(*run, source, batch=1, top=2) == got
  # The labels of data that have them, even unknown ones, are not used.
  write_table(tmp_path / "new.csv", {**new, "kind": ["?", "", "castle"]})
  assert predicted(*run, source, top=2) == got


def test_a_regression_is_in_the_unit_of_the_data(tmp_path):
  run = table_run(tmp_path, **PRICES)
  source = write_table(
    tmp_path / "new.csv", {"kind": ["flat", "house"], "area": [50.0, 100.0]}
  )
  got = predicted(*run, source)
  z = (np.array([50.0, 100.0]) - TABLE["area"].mean()) / TABLE["area"].std()
  y = linear(run[1], np.column_stack([z, np.eye(2)]))[:, 0]
  y = y * TABLE["price"].std() + TABLE["price"].mean()
  np.testing.assert_allclose([each["value"] for each in got], y, rtol=1e-5)


def test_texts_and_bad_records(tmp_path):
  """The classes are those of the run; what is skipped is named and counted."""
  texts = [{"text": f"{w} {w}", "label": w} for w in ("no", "yes") * 8]
  config = cls_labeled.get_config("smoke")
  config.data.rows = dict(config.data.rows, labels=None)
  source = write_lines(tmp_path / "texts.jsonl", texts)
  workdir = str(tmp_path / "run")
  config = configured(config, source)
  list(loop.fit(build.run(config, workdir, say=lambda line: None)))
  facts = json.loads((tmp_path / "run/data.json").read_text())
  assert facts["class_names"] == ["no", "yes"]
  run = workdir, trained.load(workdir)
  new = [{"text": t} for t in ("yes", "no no", "maybe")]
  source = write_lines(tmp_path / "new.jsonl", new)
  got = predicted(*run, source)
  assert {each["label"] for each in got} <= {"no", "yes"}
  new[1] = {"text": 7}
  write_lines(tmp_path / "new.jsonl", new)
  with pytest.raises(UserError, match=r"new.jsonl:2: text=7 is not a text"):
    predicted(*run, source)
  said = []
  left = predicted(*run, source, said=said, on_bad_record="skip")
  assert left == [got[0], got[2]]
  assert any("skipped" in line and "new.jsonl:2" in line for line in said)
  assert any(line.startswith("1 of 3 records skipped") for line in said)
  with pytest.raises(UserError, match="no field 'text'; valid: words"):
    predicted(*run, write_lines(tmp_path / "w.jsonl", [{"words": "a"}] * 2))


def test_spans_of_words_without_tags(tmp_path):
  config = ner_wnut17.get_config("smoke")
  names = ("B-x", "I-x", "O")
  config.data.rows.labels = names
  tagged = [{"words": WORDS, "tags": ["O"] * 4}]
  source = write_lines(tmp_path / "tagged.jsonl", tagged * 2)
  workdir = str(tmp_path)

  def labels(variables, batch, rng):  # a function of the word alone
    return batch["tokens"].sum(-1) % 3

  config = configured(config, source, seq_len=6)
  run = workdir, run_of(workdir, config, labels=labels)
  long = [f"w{i}" for i in range(15)]  # three windows
  (tmp_path / "new.conll").write_text("\n".join([*long, "", *WORDS, ""]))
  got = predicted(*run, f"conll:{tmp_path}/new.conll", batch=2)
  lines = [(each["record"], each["words"]) for each in got]
  path = f"{tmp_path}/new.conll"
  assert lines == [(f"{path}:1", long), (f"{path}:17", WORDS)]
  hashed = word_features.hasher(64)
  for each in got:
    numbers = [int(hashed(word).sum()) % 3 for word in each["words"]]
    assert each["tags"] == [names[i] for i in numbers]
    found = [(s["label"], s["start"], s["end"] - 1) for s in each["spans"]]
    assert found == span_f1.spans(each["tags"])
    for span in each["spans"]:
      words = each["words"][span["start"] : span["end"]]
      assert span["text"] == " ".join(words)
  # A text is cut at its spaces.
  texts = [{"text": " ".join(words)} for words in (long, WORDS)]
  again = predicted(*run, write_lines(tmp_path / "new.jsonl", texts))
  assert [each["tags"] for each in again] == [each["tags"] for each in got]


def test_questions_without_answers(tmp_path):
  config = configured(qa_newwiki.get_config("smoke"), "fake:questions")

  def span(variables, batch, rng):  # from the first Q in the text to the Z
    text = batch["types"] == 1
    start, end = ((batch["tokens"] == ord(c)) & text for c in "QZ")
    return 1.0 * start, 2.0 * end

  run = str(tmp_path), run_of(str(tmp_path), config, span=span)
  text = "The lock was built in 1843, and the harbour in 1901. " * 2
  texts = (f"{text} In QuiZ. {text}", f"QZ {text}")
  paragraphs = [
    {"context": text, "qas": [{"question": "who?"}]} for text in texts
  ]
  paragraphs[0]["qas"][0]["id"] = "q1"
  path = tmp_path / "new.json"
  path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
  for batch in (1, 8):
    got = predicted(*run, f"squad:{path}", batch=batch, top=2)
    assert [each["id"] for each in got] == ["q1", got[1]["record"]]
    assert [each["answer"] for each in got] == ["QuiZ", "QZ"]
    assert [each["score"] for each in got] == [3.0, 3.0]
    assert all(each["score_2"] <= 3.0 for each in got)


def test_images_in_a_flat_folder(tmp_path):
  names = ("train/ant/a", "train/bee/b", "new/2", "new/10")
  for name in names:
    path = tmp_path / f"{name}.png"
    path.parent.mkdir(exist_ok=True, parents=True)
    pixels = RNG.integers(0, 256, (4, 6), np.uint8)
    Image.fromarray(pixels).save(path)

  def logits(variables, batch, rng):  # which side is lighter
    return batch["image"].reshape(-1, 4, 2, 3).mean((1, 3))

  config = conv_fashion_mnist.get_config("smoke")
  ops = "decode(1)|flip|central_crop((4, 6))|scale(0, 1)"
  config = configured(config, f"folder:{tmp_path}/train", ops=ops)
  run = str(tmp_path), run_of(str(tmp_path), config, logits=logits)
  paths = [f"{tmp_path}/new/{name}.png" for name in ("10", "2")]
  wanted = []
  for path in paths:  # without the random flip
    left, right = (
      half.mean() / 255 for half in np.split(np.array(Image.open(path)), 2, 1)
    )
    probability = 1 / (1 + np.exp(-abs(left - right)))
    label = "ant" if left > right else "bee"
    wanted.append((path, label, pytest.approx(probability, abs=1e-5)))
  for source in (f"images:{tmp_path}/new/*.png", f"folder:{tmp_path}/new"):
    got = predicted(*run, source)
    assert [tuple(each.values()) for each in got] == wanted
  with pytest.raises(UserError, match="'image' has the shape"):
    predicted(*run, f"folder:{tmp_path}/new", ops="decode(1)|resize(4)")


@pytest.mark.parametrize("ending", ["npy", "parquet"])
def test_vectors_of_a_table_are_numpys(tmp_path, ending):
  workdir, run = table_run(tmp_path, **HOUSES)
  new = {"price": [4e4, 1e5, 2e5], "area": [30.0, 110.0, 190.0]}
  source = write_table(tmp_path / "new.csv", new)

  def embeddings(variables, batch, rng):
    return batch["x"] * jnp.array([[2.0, 3.0]])

  parts = run.parts._replace(
    task=types.Task(None, {}, {"embeddings": embeddings})
  )
  run = run._replace(parts=parts, variables=types.Variables({}, {}))
  wanted = preparation.Wanted("--source", {"source": source, "split": "all"}, 2)
  said = []
  given = (run, workdir, wanted)
  made = vectors.embedded(*given, None, said.append)
  path = tmp_path / f"vectors.{ending}"
  path.write_bytes(b"".join(vectors.content(made, str(path))))
  x = [(new[k] - TABLE[k].mean()) / TABLE[k].std() for k in ("area", "price")]
  want = np.stack(x, 1) * [[2, 3]]
  if ending == "npy":
    found = np.load(path)
  else:
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = parquet.read_table(path).to_pydict()
    found = np.array(columns["embedding"])
    lines = [f"{tmp_path}/new.csv:{line}" for line in (2, 3, 4)]
    assert columns["record"] == lines
  np.testing.assert_allclose(found, want, atol=1e-5)
  with pytest.raises(UserError, match="no prediction 'x'.*there are: embedd"):
    vectors.embedded(*given, "x", said.append)
  with pytest.raises(UserError, match="end it in .npy or .parquet"):
    next(vectors.content(made, "x.csv"))


def test_several_yes_or_no_answers_and_a_csv():
  context = Context(np.zeros((2, 2)), {"y": leaf.Leaf((2,), np.dtype("f4"))})
  piece = Piece(np.array([[0.0, 9.0]]), np.ones(1), ["a,b"], dict)
  (record,) = found = list(logits(context)(iter([piece])))
  assert record == {
    "record": "a,b",
    "probability_1": 0.5,
    "probability_2": round(1 / (1 + np.exp(-9.0)), 6),
  }
  found = [{**each, "words": ["a", '"']} for each in found]
  text = b"".join(table.lines(found, "x.csv")).decode()
  header, row = csv.reader(io.StringIO(text))
  assert header == [*record, "words"] and row[0] == "a,b"
  assert json.loads(row[-1]) == ["a", '"']
  with pytest.raises(ValueError, match="not of classes"):
    logits(context._replace(abstract=np.zeros((2, 3, 4))))


@pytest.mark.parametrize(
  ("given", "line"),
  [
    ({}, "exactly one of --source, --text, --images and --number, not none"),
    ({"text": ["a"], "images": "b"}, "not --text and --images"),
    ({"text": ["a", " "]}, "--text is empty"),
    ({"output": "/dev/null/x.csv"}, "--output=/dev/null/x.csv: File exists"),
    ({"output": "x.txt"}, "end it in .jsonl or .csv"),
    ({"output": "gs://b/x.csv"}, "not supported here"),
    ({"source": "csv:x.csv", "output": "./x.csv"}, "is the data"),
    ({"images": "p/*.jpg", "output": "./p"}, "is the data"),
    ({"images": "p", "number": 3}, "not --images and --number"),
    ({"images": "p", "prompt": ["a"]}, "draws pictures; leave out --images"),
    ({"images": "p", "window": "0,8"}, "--window=0,8: give HEIGHT,WIDTH"),
    ({"output": "tests/conftest.py"}, "end it in .jsonl or .csv, or name"),
    ({"output": "LICENSE"}, "LICENSE is a file; name a folder"),
  ],
)
def test_contradicting_flags_are_one_line(given, line, monkeypatch):
  ways = dict(source=None, text=[], images=None, number=None, prompt=[])
  drawn = dict(window=None, min_score=None, level=None, overlap=0.5, flips=True)
  base = dict(**ways, **drawn, output="-")
  if given.keys() == {"output"}:
    base["text"] = ["a"]

  class Flags(SimpleNamespace):
    def __getitem__(self, name):
      return SimpleNamespace(value=getattr(self, name))

  for module in (predict, picture_flags):
    monkeypatch.setattr(module, "FLAGS", Flags(**{**base, **given}))
  with pytest.raises(UserError, match=line):
    predict._check()
