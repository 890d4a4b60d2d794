"""One policy of bad records for every kind of rows and every source."""

import json

import numpy as np
import pytest

from input_pipeline.batching import pipeline

R = range(12)
LABELS = ["O", "B-X"]
# Of each kind of rows: its settings, its records, and fields that make one bad.
KINDS = {
  "labeled": (
    dict(labels=["no", "yes"]),
    [{"text": f"line {i}", "label": ["no", "yes"][i % 2]} for i in R],
    [{"text": 5}, {"text": "\ud800"}, {"label": "maybe"}, {"label": None}],
  ),
  "preferences": (
    {},
    [{"prompt": f"q {i}", "chosen": "yes", "rejected": "no"} for i in R],
    [{"chosen": 5}, {"prompt": None}, {"rejected": "\ud800"}],
  ),
  "translation": (
    {},
    [{"source": f"line {i}", "target": f"zeile {i}"} for i in R],
    [{"source": 5}, {"target": None}, {"target": "\ud800"}],
  ),
  "tagged": (
    dict(labels=LABELS),
    [{"words": ["a", str(i)], "tags": LABELS} for i in R],
    [{"words": "ab"}, {"tags": ["O"]}, {"tags": ["O", "?"]}],
  ),
  "questions": (
    {},
    [
      {
        "text": f"the answer is {i}",
        "question": "what",
        "answers": {"text": [str(i)], "answer_start": [14]},
        "id": str(i),
      }
      for i in R
    ],
    [{"question": 5}, {"answers": "2"}, {"text": ""}],
  ),
  "conversations": (
    {},
    [
      {
        "messages": [
          {"role": "user", "content": f"q {i}"},
          {"role": "assistant", "content": f"a {i}"},
        ]
      }
      for i in R
    ],
    [{"messages": 5}, {"messages": [{"role": "cat", "content": "a"}]}],
  ),
  "sentence_pairs": (
    {},
    [{"text": f"One {i}. Two {i}. Three {i}."} for i in R],
    [{"text": 5}, {"text": "\ud800"}],
  ),
  "cooccurrence": ({}, [{"text": f"a b {i}"} for i in R], [{"text": 5}]),
  "columns": (
    dict(label="y", numeric=["a"]),
    [{"a": float(i), "y": ["no", "yes"][i % 2]} for i in R],
    [{"a": "x"}, {"y": None}],
  ),
  "": ({}, [{"text": f"line number {i}"} for i in R], [{"text": None}]),
}
# Rows that are one record each, in training and in evaluation.
ALWAYS_ONE = {"labeled", "preferences", "columns"}
UNREADABLE = "not json"
FAULTS = [
  (kind, fault)
  for kind, (_, _, bad) in KINDS.items()
  for fault in (UNREADABLE, *bad)
]


def settings(kind, tmp_path, fault, **other):
  keys, records, _ = KINDS[kind]
  lines = [json.dumps(r) for r in records]
  if fault:
    broken = json.dumps({**records[7], **fault}) if fault != UNREADABLE else "{"
    lines[7] = broken
  path = tmp_path / f"{'bad' if fault else 'good'}.jsonl"
  path.write_text("\n".join(lines))
  told = dict(source=f"jsonl:{path}", split="all", workdir=str(tmp_path))
  if kind != "columns":
    told |= dict(tokenizer="byte", seq_len=96)
  if kind == "questions":
    keys = dict(keys, max_question=8)
  if kind:
    told["rows"] = dict(name=kind, **keys)
  return {**told, "batch_size": 5, **other}


def batches(make, given):
  """(all rows of two or three batches, the Data)."""
  data = make(**given)
  stream = data.batches(0)
  found = [batch for _, batch in zip(range(3), stream, strict=False)]
  return {k: np.concatenate([b[k] for b in found]) for k in found[0]}, data


@pytest.mark.parametrize("make", [pipeline.train, pipeline.evaluation])
@pytest.mark.parametrize(
  ("kind", "fault"), FAULTS, ids=[f"{k}-{str(f)[:20]!a}" for k, f in FAULTS]
)
def test_a_bad_record_is_named_or_padded(tmp_path, make, kind, fault):
  other = dict(shuffle=False) if make is pipeline.train else {}
  if kind == "columns":  # Its statistics come from a training.
    pipeline.train(**settings(kind, tmp_path, None))
  good, _ = batches(make, settings(kind, tmp_path, None, **other))
  with pytest.raises(ValueError, match=r"bad.jsonl:8") as error:
    batches(make, settings(kind, tmp_path, fault, **other))
  assert "\n" not in str(error.value)
  given = settings(kind, tmp_path, fault, on_bad_record="skip", **other)
  bad, data = batches(make, given)
  one = kind in ALWAYS_ONE or (
    kind == "translation" and make is pipeline.evaluation
  )
  if one:
    gone = good["index"] == 7
    assert gone.sum() == 1 and data.num_examples == len(R)
    for name, leaf in good.items():
      nothing = -1 if name == "index" else 0
      np.testing.assert_array_equal(bad[name][~gone], leaf[~gone], name)
      assert (bad[name][gone] == nothing).all(), name
    shares = [
      next(make(**given, host_index=i, host_count=5).batches(1))
      for i in range(5)
    ]
    for name in good:
      whole = np.concatenate([share[name] for share in shares])
      np.testing.assert_array_equal(whole, bad[name][5:10], name)
  assert data.skipped().count == 1
  assert data.skipped().names == (f"{tmp_path}/bad.jsonl:8",)


# A file of each format, one record of which is bad, and the name it is given.
def _csv(root):
  rows = [f"line {i},{'ab'[i % 2]}" for i in R]
  rows[7] += ",one,two"
  (root / "a.csv").write_text("text,label\n" + "\n".join(rows))
  return "csv:a.csv", "a.csv:9"


def _jsonl(root):
  lines = [json.dumps({"text": f"line {i}", "label": "ab"[i % 2]}) for i in R]
  lines[7] = lines[7][:9]
  (root / "a.jsonl").write_text("\n".join(lines))
  return "jsonl:a.jsonl", "a.jsonl:8"


def _parquet(root):
  parquet = pytest.importorskip("pyarrow.parquet")
  arrow = pytest.importorskip("pyarrow")
  texts = [f"line {i}" for i in R]
  labels = ["ab"[i % 2] for i in R]
  labels[7] = "c"
  table = arrow.table({"text": texts, "label": labels})
  parquet.write_table(table, root / "a.parquet")
  return "parquet:a.parquet", "a.parquet:7"


def _conll(root):
  sentences = [f"w{i} O\nx B-X\n" for i in R]
  sentences[7] = "w O\nx\n"
  (root / "a.conll").write_text("\n".join(sentences))
  return "conll:a.conll", "a.conll:22"


def _squad(root):
  paragraphs = [
    {
      "context": f"the answer is {i}",
      "qas": [
        {
          "id": str(i),
          "question": "what",
          "answers": [{"text": str(i), "answer_start": 14}],
        }
      ],
    }
    for i in R
  ]
  del paragraphs[7]["context"]
  data = {"data": [{"title": "t", "paragraphs": paragraphs}]}
  (root / "a.json").write_text(json.dumps(data))
  return "squad:a.json", "paragraphs[7]"


def _npy(root):
  x = np.arange(24, dtype=np.float32).reshape(12, 2)
  x[7, 1] = np.nan
  np.save(root / "x.npy", x)
  np.save(root / "label.npy", np.arange(12) % 2)
  return "npy:.", "7"


def _table(root):
  rows = [f"{i / 2},{i % 2}" for i in R]
  rows[7] += ",3"
  (root / "a.csv").write_text("x,label\n" + "\n".join(rows))
  return "csv:a.csv", "a.csv:9"


LABELED = dict(rows=dict(name="labeled", labels=["a", "b"]))
TEXT = dict(tokenizer="byte", seq_len=96)
TAGGED = dict(rows=dict(name="tagged", labels=LABELS), **TEXT)
QUESTIONS = dict(
  rows=dict(name="questions", max_question=8), text_key="context", **TEXT
)
SOURCES = [
  (_csv, LABELED | TEXT),
  (_jsonl, LABELED | TEXT),
  (_jsonl, dict(tokenizer="byte", seq_len=16)),
  (_parquet, LABELED | TEXT),
  (_conll, TAGGED),
  (_squad, QUESTIONS),
  (_npy, {}),
  (_table, {}),
]


@pytest.mark.parametrize("make", [pipeline.train, pipeline.evaluation])
@pytest.mark.parametrize(
  ("write", "kind"),
  SOURCES,
  ids=[f"{w.__name__}-{k.get('rows', {}).get('name')}" for w, k in SOURCES],
)
def test_every_source_keeps_the_policy(
  tmp_path, monkeypatch, make, write, kind
):
  monkeypatch.chdir(tmp_path)
  uri, name = write(tmp_path)
  given = dict(source=uri, split="all", batch_size=6, max_record_bytes=4000)
  with pytest.raises(ValueError) as error:
    batches(make, given | kind)
  assert name in str(error.value) and "\n" not in str(error.value)
  found, data = batches(make, given | kind | dict(on_bad_record="skip"))
  assert data.skipped().count >= 1
  assert all(name in each for each in data.skipped().names)
  if "label" in found and make is pipeline.evaluation:
    assert found["index"].tolist() == [*range(7), -1, *range(8, 12)]
    assert found["mask"].tolist() == [1] * 7 + [0] + [1] * 4
