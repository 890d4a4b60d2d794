"""Words with tags: the sources, the rows, the task and the evaluator."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import rows
from input_pipeline.batching import pipeline
from input_pipeline.rows.parts import word_features
from input_pipeline.rows.tagged import owned
from input_pipeline.sources import open_source
from models import Model
from train import build, loop, types
from train.objectives import losses
from train.tasks.token_classification import token_classification

LABELS = ["B-x", "I-x", "O"]


def write(path, records):
  path.write_text(
    "".join(
      json.dumps({"words": w.split(" "), "tags": t.split(" ")}) + "\n"
      for w, t in records
    )
  )
  return f"jsonl:{path}"


def data(uri, seq_len=16, **kind):
  return pipeline.evaluation(
    source=uri,
    split="all",
    tokenizer="byte",
    seq_len=seq_len,
    rows=dict(name="tagged", labels=LABELS, **kind),
    batch_size=2,
  )


def test_the_first_token_of_a_word_has_its_tag(tmp_path):
  uri = write(tmp_path / "a", [("ab c", "B-x O"), ("d", "O")])
  found = data(uri, seq_len=9)
  batch = next(found.batches(0))
  cls, sep = 256, 257
  assert batch["tokens"][0].tolist() == [cls, *b"ab c", sep, 0, 0, 0]
  assert batch["segments"][0].tolist() == [1] * 6 + [0] * 3
  assert batch["mask"][0].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 0]
  assert batch["targets"][0].tolist() == [0, 0, 0, 2, 0, 0, 0, 0, 0]
  assert found.class_names == tuple(LABELS) and found.num_classes == 3


def test_words_longer_than_a_window_lose_their_end_alone(tmp_path):
  uri = write(tmp_path / "a", [("abcdefgh i jklmnopqrst", "B-x O B-x")])
  batches = list(data(uri, seq_len=6).batches(0))
  tokens = np.concatenate([b["tokens"] for b in batches])
  mask = np.concatenate([b["mask"] for b in batches])
  assert mask.sum() == 3  # each word once
  assert [
    bytes(r[r < 256].astype(np.uint8)).rstrip(b"\0") for r in tokens[:3]
  ] == [
    b"abcd",
    b" i",
    b" jkl",
  ]


@pytest.mark.parametrize("overlap", [0, 3, 7])
@pytest.mark.parametrize("seed", range(8))
def test_every_word_counts_in_one_window_that_holds_it(seed, overlap):
  rng = np.random.default_rng(seed)
  sizes = rng.integers(1, 9, size=rng.integers(1, 40))
  found = owned(sizes, 8, overlap)
  counted = [w for _, _, first, last in found for w in range(first, last)]
  assert counted == list(range(len(sizes)))
  for start, end, first, last in found:
    assert start <= first <= last <= end
    assert sizes[start:end].sum() <= 8
  for a, b in zip(found[:-1], found[1:], strict=True):
    assert sizes[b[0] : a[1]].sum() <= overlap and b[0] <= a[1]


def test_a_word_counts_where_it_is_farther_from_the_edge():
  # Windows 0-7 and 4-11: the shared words 4…7 are halved.
  assert owned(np.ones(12, int), 8, 4) == [(0, 8, 0, 6), (4, 12, 6, 12)]


def test_hashed_words_are_their_features(tmp_path):
  uri = write(tmp_path / "a", [("Ab ab", "B-x O"), ("#x 2", "O O")])
  batch = next(data(uri, seq_len=3, buckets=1000).batches(0))
  assert batch["tokens"].shape == (2, 3, word_features.COUNT)
  first, second, none = batch["tokens"][0]
  assert first.max() < 1000 and not none.any()
  names = word_features.features("Ab")
  assert names[:4] == ["w=Ab", "l=ab", "s=Xx", "t=Xx"]
  shared = first[first == second]
  assert len(shared[shared > 0]) == len(
    [a for a, b in zip(names, word_features.features("ab"), strict=True)
     if a == b and a]
  )  # fmt: skip
  assert batch["mask"].tolist() == [[1, 1, 0], [1, 1, 0]]


def test_a_plan_knows_the_leaves(tmp_path):
  uri = write(tmp_path / "a", [("ab c", "B-x O")])
  for kind in ({}, {"buckets": 50}):
    settings = dict(name="tagged", labels=LABELS, **kind)
    leaves, classes = rows.planned(settings, 16)
    spec = data(uri, **kind).spec
    assert {k: (tuple(s), np.dtype(d)) for k, (s, d) in leaves.items()} == {
      k: spec[k] for k in leaves
    }
    assert classes == 3


@pytest.mark.parametrize(
  "record, kind, told",
  [
    (("a b", "O"), {}, "2 words, but 1 tags"),
    (("a", "B-y"), {}, "tag 'B-y' is none of B-x, I-x, O"),
    (("a", "O"), {"overlap": 14}, "leaves no room for words with an overlap"),
    (("a", "O"), {"labels": []}, r"labels is missing: .* has labels=\['O'\]"),
    (("a", "O"), {"tags_key": "t"}, "no field 't'; valid: words, tags"),
    (("a", "O"), {"buckets": 1}, "buckets 1 is not an integer above 1"),
  ],
)
def test_hostile_records_and_settings_are_one_line(
  tmp_path, record, kind, told
):
  uri = write(tmp_path / "a", [record])
  with pytest.raises(ValueError, match=told) as error:
    pipeline.train(
      source=uri,
      split="all",
      tokenizer="byte",
      seq_len=16,
      rows={"name": "tagged", "labels": LABELS, **kind},
      batch_size=2,
    )
  assert "\n" not in str(error.value)


def test_bad_records_are_skipped_where_they_may(tmp_path):
  uri = write(tmp_path / "a", [("a", "O"), ("b", "?"), ("c", "O")])
  bad = '{"words": "x", "tags": ["O"]}\nnot json\n'
  (tmp_path / "a").write_text((tmp_path / "a").read_text() + bad)
  found = pipeline.evaluation(
    source=uri,
    split="all",
    tokenizer="byte",
    seq_len=8,
    rows=dict(name="tagged", labels=LABELS),
    batch_size=4,
    on_bad_record="skip",
  )
  assert found.num_examples == 2
  assert found.skipped().count == 3
  assert next(found.batches(0))["tokens"][1, 1] == ord("c")


CONLL = (
  "-DOCSTART-\t-X-\tO\n\nAb\tNN\tB-x\n#\tO\n\n\t\nc d O\n-\tO\n\n\n\ne O\n"
)


def test_conll_files_are_read_by_sentences(tmp_path):
  path = tmp_path / "a.conll"
  path.write_text(CONLL)
  source = open_source(f"conll:{path}", "all")
  found = source.read(np.arange(source.length))
  assert list(found["words"]) == [["Ab", "#"], ["c", "-"], ["e"]]
  assert list(found["tags"]) == [["B-x", "O"], ["O", "O"], ["O"]]
  assert source.name(1) == f"{path}:7"
  path.write_bytes(CONLL.replace("\n", "\r\n").encode())
  again = open_source(f"conll:{path}", "all")
  assert list(again.read(np.arange(3))["tags"]) == list(found["tags"])


@pytest.mark.parametrize(
  "content, told",
  [
    (b"a O\nword\n", "the line 'word' has no tag"),
    (b"\n\n", "holds no record"),
    (b"-DOCSTART- O\n\n", "holds no sentence"),
    (b"\xff\tO\n", "not UTF-8 at byte 0"),
  ],
)
def test_hostile_conll_is_one_line(tmp_path, content, told):
  path = tmp_path / "a.conll"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=told) as error:
    source = open_source(f"conll:{path}", "all")
    source.read(np.arange(source.length))
  assert str(path) in str(error.value) and "\n" not in str(error.value)


def stand_in():
  """Logits that are the tokens' own rows of a table."""

  def apply(params, state, tokens_BT, segments_BT=None, rng=None, train=False):
    del segments_BT, rng, train
    return params["table"][tokens_BT], state

  table = jax.random.normal(jax.random.key(0), (7, 3))
  return Model(lambda rng: ({"table": table}, {}), apply)


def example():
  rng = np.random.default_rng(0)
  return {
    "tokens": rng.integers(7, size=(2, 4)),
    "segments": np.ones((2, 4), np.int32),
    "targets": rng.integers(3, size=(2, 4)),
    "mask": np.array([[1, 0, 1, 1], [0, 0, 1, 0]], np.float32),
  }


@pytest.mark.parametrize("crf", [False, True])
def test_the_loss_is_the_mean_over_the_words(crf):
  task = token_classification(stand_in(), num_classes=3, crf=crf)
  batch = jax.tree.map(jnp.asarray, example())
  variables = task.init(jax.random.key(1), batch)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(jax.random.key(2), 0, True)
  )
  logits = np.asarray(variables.params["table"])[batch["tokens"]]
  nats = losses.cross_entropy(jnp.array(logits), batch["targets"])
  # A chain of zeros does not care: both losses are then the same.
  real = np.asarray(batch["mask"]) > 0
  np.testing.assert_allclose(mean.value(), np.asarray(nats)[real].mean(), 1e-5)
  right = logits.argmax(-1) == batch["targets"]
  assert float(aux.metrics["accuracy"].value()) == right[real].mean()
  told = task.predict["labels"](variables, batch, jax.random.key(0))
  np.testing.assert_array_equal(np.asarray(told)[real], logits.argmax(-1)[real])


def test_wrong_settings_are_told():
  with pytest.raises(ValueError, match="needs labels"):
    token_classification(stand_in())
  with pytest.raises(ValueError, match="not supported with crf=True"):
    token_classification(
      stand_in(), num_classes=3, crf=True, label_smoothing=0.1
    )


@pytest.mark.slow
def test_a_run_learns_names_and_writes_them(tmp_path):
  from configs.text import ner_wnut17

  config = ner_wnut17.get_config("smoke")
  config.total_steps, config.batch_size = 120, 16
  config.model.dropout = 0.0
  config.checkpoint.every_steps = 120
  config.data.source = "fake:tagged?documents=400"
  config.evals = {"val": dict(name="entities", split="validation")}
  config.early_stopping, config.checkpoint.keep_best = {}, None
  run = build.run(config, str(tmp_path / "run"), say=lambda line: None)
  last = list(loop.fit(run))[-1].scalars
  assert last["val/f1"] > 0.9 and last["val/f1_person"] == last["val/f1"]
  text = (tmp_path / "run" / "val.conll").read_text()
  source = open_source("fake:tagged?documents=400", "validation")
  words = source.read(np.arange(source.length))["words"]
  read = open_source(f"conll:{tmp_path}/run/val.conll", "all")
  assert list(read.read(np.arange(read.length))["words"]) == list(words)
  right = [c[1] == c[2] for c in map(str.split, text.splitlines()) if c]
  assert np.mean(right) > 0.9
