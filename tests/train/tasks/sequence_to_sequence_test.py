import json
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

from common.errors import UserError
from input_pipeline.batching import pipeline
from models import Model
from models.language.decoder import Representation
from train import build, loop, trained, translate, types
from train.evaluators import text_generation as evaluator_file
from train.evaluators.text_generation import text_generation
from train.tasks.sequence_to_sequence import sequence_to_sequence

V, D = 7, 5
TABLE = np.random.default_rng(0).normal(size=(V, D)).astype(np.float32)


def stub(seen=None):
  """A model whose x is the table's row of the token that the decoder reads."""

  def apply(params, state, inputs, tokens, *, method=None, rng=None, **where):
    del params, rng
    where.pop("train", None)
    if seen is not None:
      seen.append((np.asarray(tokens), where))
    x_BTD = jnp.asarray(TABLE)[tokens] + jnp.mean(inputs) * 0.1
    return Representation(x_BTD, jnp.asarray(TABLE), {}, None), state

  return Model(lambda rng: ({}, {}), apply, represents=True)


def batch():
  return {
    "inputs": jnp.asarray([[1, 2, 3], [4, 5, 0]]),
    "input_segments": jnp.asarray([[1, 1, 2], [1, 1, 0]]),
    "targets": jnp.asarray([[3, 1, 4, 6], [2, 6, 0, 0]]),
    "segments": jnp.asarray([[1, 1, 2, 2], [1, 1, 0, 0]]),
    "positions": jnp.asarray([[0, 1, 0, 1], [0, 1, 0, 0]]),
    "mask": jnp.asarray([[1.0, 1, 1, 1], [1, 1, 0, 0]]),
    "bytes": jnp.asarray([5.0, 3.0]),
  }


def by_hand(tokens, smoothing):
  """Σ and weight of the loss, from the formula."""
  data = {k: np.asarray(v) for k, v in batch().items()}
  total = 0.0
  for b, t in zip(*np.nonzero(data["mask"]), strict=True):
    x = TABLE[tokens[b][t]] + data["inputs"].mean() * 0.1
    logits = TABLE.astype(float) @ x
    log_p = logits - math.log(np.exp(logits).sum())
    target = np.full(V, smoothing / V)
    target[data["targets"][b, t]] += 1 - smoothing
    total -= (target * log_p).sum()
  return total, data["mask"].sum()


# One token late, 5 before the first of each segment.
LATE = [[5, 3, 5, 4], [5, 2, 5, 0]]


def test_the_loss_is_the_formula_and_each_pair_begins_with_the_start():
  seen = []
  task = sequence_to_sequence(stub(seen), start=5, label_smoothing=0.2)
  variables = types.Variables({}, {})
  for train, smoothing in ((True, 0.2), (False, 0.0)):
    mean, aux = task.losses["loss"](
      variables, batch(), types.Context(jax.random.key(0), 0, train)
    )
    total, weight = by_hand(LATE, smoothing)
    np.testing.assert_allclose(mean.total, total, rtol=1e-5)
    assert float(mean.weight) == weight
  bits = aux.metrics["bits_per_byte"]
  np.testing.assert_allclose(bits.value(), total / math.log(2) / 8, rtol=1e-5)
  tokens, where = seen[0]
  real = np.asarray(batch()["mask"]) > 0
  np.testing.assert_array_equal(tokens[real], np.array(LATE)[real])
  for name, key in (
    ("input_segments_BS", "input_segments"),
    ("segments_BT", "segments"),
    ("positions_BT", "positions"),
  ):
    np.testing.assert_array_equal(where[name], batch()[key])


def test_spans_of_t5_are_a_batch_as_well():
  data = pipeline.train(
    source="fake:text",
    tokenizer="byte",
    seq_len=32,
    ops="span_corruption",
    batch_size=2,
  )
  spans = next(data.batches(0))
  seen = []
  task = sequence_to_sequence(stub(seen))
  rows = {k: jnp.asarray(v) % V for k, v in spans.items() if v.ndim == 2}
  task.losses["loss"](
    types.Variables({}, {}), rows, types.Context(jax.random.key(0), 0, True)
  )
  tokens, where = seen[0]
  np.testing.assert_array_equal(where["input_segments_BS"], rows["inputs_mask"])
  np.testing.assert_array_equal(tokens[:, 0], 0)
  np.testing.assert_array_equal(tokens[:, 1:], spans["targets"][:, :-1] % V)


PAIRS = [
  ("eins", "the cat sat on the mat today", "the cat sat on a mat today"),
  ("zwei", "a dog barks at the old tree", "the dog barks at a tree"),
  ("drei", "nothing of this is right at all", "quite another sentence stands"),
]


def context_of(path, written):
  """An evaluator's context whose task writes the given texts."""
  records = [{"source": s, "target": t} for s, t, _ in PAIRS]
  file = path / "pairs.jsonl"
  file.write_text("".join(json.dumps(r) + "\n" for r in records))
  data = pipeline.evaluation(
    source=f"jsonl:{file}",
    split="all",
    tokenizer="byte",
    seq_len=40,
    rows=dict(name="translation"),
    batch_size=2,
  )
  table = np.zeros((len(written) + 1, 40), np.int32)
  for i, text in enumerate(written):
    table[i, : len(text)] = list(text.encode())
  lengths = jnp.asarray([*map(len, written), 0])

  def samples(variables, batch, rng):
    del variables, rng
    assert batch["beams"] == 4
    return {
      "tokens": jnp.asarray(table)[batch["index"]],
      "length": lengths[batch["index"]],
    }

  def attention(variables, batch, rng):
    del variables, rng
    T, S = batch["targets"].shape[1], batch["inputs"].shape[1]
    return jnp.broadcast_to(jnp.eye(T, S)[None, None, None], (2, 2, 3, T, S))

  return types.EvalContext(
    task=types.Task(None, {}, {"samples": samples, "attention": attention}),
    batches=lambda: data.batches(0),
    decode=data.tokenizer.decode,
    encode=data.tokenizer.encode,
    num_classes=None,
    workdir=str(path),
    key="test",
    rng=jax.random.key(0),
    load=None,
    say=print,
    texts=data.texts,
  )


def test_bleu_and_chrf_are_those_of_sacrebleus_command(tmp_path):
  context = context_of(tmp_path, [w for *_, w in PAIRS])
  figures = text_generation(context, attention=1)(types.Variables({}, {}), 0)
  folder = tmp_path / "test"
  written = (folder / "hypotheses.txt").read_text().splitlines()
  assert written == [w for *_, w in PAIRS]
  told = subprocess.run(
    [
      *(sys.executable, "-m", "sacrebleu", str(folder / "references.txt")),
      *("-i", str(folder / "hypotheses.txt")),
      *("-m", "bleu", "chrf", "-f", "json", "-w", "6"),
    ],
    capture_output=True,
    text=True,
    check=True,
  )
  theirs = {each["name"]: each for each in json.loads(told.stdout)}
  signatures = json.loads((folder / "figures.json").read_text())["signatures"]
  for ours, name in (("bleu", "BLEU"), ("chrf", "chrF2")):
    np.testing.assert_allclose(figures[ours], theirs[name]["score"], atol=1e-4)
    # "version:2.6.0" and the like.
    assert theirs[name]["version"] in signatures[ours]
  assert 5 < figures["bleu"] < 95
  picture = matplotlib.image.imread(folder / "attention_0.png")
  assert picture.shape[1] > picture.shape[0] / 2  # two layers, side by side
  assert not (folder / "attention_1.png").exists()
  assert picture[..., :3].min() < 0.3  # something is drawn


def test_rouge_is_that_of_its_definition(tmp_path):
  context = context_of(tmp_path, [w for *_, w in PAIRS])
  figures = text_generation(context, metrics=("rouge",))(None, 0)
  # Of the pairs, by hand: common words, common pairs of words, and the longest
  # common subsequence, each beside the words (or pairs) of both texts.
  counts = [
    # (rouge1, rouge2, rougeL): (common, of the text, of the reference)
    [(6, 7, 7), (4, 6, 6), (6, 7, 7)],
    [(6, 6, 7), (2, 5, 6), (4, 6, 7)],
    [(0, 4, 7), (0, 3, 6), (0, 4, 7)],
  ]
  for n, name in enumerate(("rouge1", "rouge2", "rougeL")):
    f1 = [2 * c / (a + b) for c, a, b in (pair[n] for pair in counts)]
    np.testing.assert_allclose(figures[name], 100 * np.mean(f1), rtol=1e-6)


@pytest.mark.parametrize(
  "changed, told",
  [
    ({"metrics": ("blue",)}, "'blue' is none of bleu, chrf, rouge"),
    ({"beams": -1}, "beams=-1"),
    ({"reference": "en"}, "no field 'en'; valid: source, target"),
  ],
)
def test_a_wrong_argument_of_the_evaluator_is_told(tmp_path, changed, told):
  context = context_of(tmp_path, [w for *_, w in PAIRS])
  with pytest.raises(ValueError, match=told):
    text_generation(context, **changed)(None, 0)


def test_a_missing_library_is_one_line(monkeypatch):
  monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
  with pytest.raises(ValueError, match=r"pip install -e '\.\[text\]'"):
    evaluator_file.scorer(("bleu",))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A workdir of the smoke of translate_multi30k, trained."""
  from configs.text import translate_multi30k

  workdir = str(tmp_path_factory.mktemp("translate") / "run")
  config = translate_multi30k.get_config("smoke")
  config.evals.test.beams = 2
  reports = list(loop.fit(build.run(config, workdir, say=lambda line: None)))
  scalars = {k: v for report in reports for k, v in report.scalars.items()}
  assert math.isfinite(scalars["test/bleu"])
  return workdir


@pytest.mark.slow
def test_translate_writes_what_the_evaluator_does(run):
  folder = pathlib.Path(run) / "test"
  found = trained.load(run)
  write = translate.translator(found, beams=2, alpha=0.6)
  data = pipeline.evaluation(
    source="fake:pairs?source_key=de&target_key=en",
    split="validation",
    tokenizer="byte",
    seq_len=32,
    rows=dict(name="translation", source_key="de", target_key="en"),
    batch_size=8,
  )
  sources = list(data.texts(np.arange(data.num_examples))["de"])
  written = write(sources, len(sources) + 2)
  assert written == (folder / "hypotheses.txt").read_text().split("\n")[:-1]
  assert write(["", sources[0], "  "], 4) == ["", written[0], ""]
  found.parts.config["task"]["name"] = "language_modeling"
  with pytest.raises(
    UserError, match="is language_modeling, not sequence_to_sequence"
  ):
    translate.translator(found, beams=1, alpha=0.0)


def test_lines_that_are_no_text_are_told(tmp_path):
  path = tmp_path / "lines"
  path.write_bytes("gut\r\nähm\n".encode() + b"\xff\n")
  lines = translate._lines(str(path))
  assert [next(lines), next(lines)] == ["gut", "ähm"]
  with pytest.raises(UserError, match="line 3 is not UTF-8"):
    next(lines)
  with pytest.raises(UserError, match="No such file"):
    next(translate._lines(str(tmp_path / "none")))
  assert list(translate._batches("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
