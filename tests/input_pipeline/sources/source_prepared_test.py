"""prepared:DIR, written here by hand as the format's description says."""

import hashlib
import json

import numpy as np
import pytest

from input_pipeline import tokenizers
from input_pipeline.batching import pipeline
from input_pipeline.packing.token_file import token_file
from input_pipeline.sources import open_source

TEXTS = [
  f"document {i}: 春眠不觉晓，处处闻啼鸟。\n" + "word " * (i % 7)
  for i in range(60)
] + [""]
SPLITS = {"train": TEXTS[:50], "validation": TEXTS[50:]}


def write(folder, model=None, shards=3, text_key="text"):
  """A prepared folder; tokens by `model`, a tokenizer, one after another."""
  folder.mkdir()
  splits = {}
  for split, texts in SPLITS.items():
    records, tokens = [], []
    for s in range(shards):
      part = texts[s * len(texts) // shards : (s + 1) * len(texts) // shards]
      stem = f"{split}-{s:05}-of-{shards:05}"
      lines = [
        json.dumps(
          {"id": f"{stem}/{i}", text_key: t, **({"n": 1} if i else {})}
        )
        for i, t in enumerate(part)
      ]
      (folder / f"{stem}.jsonl").write_text("".join(x + "\n" for x in lines))
      records.append(f"{stem}.jsonl")
      if model is not None:
        ids, ends = [], []
        for i, t in enumerate(part):
          ids += ([model.eos] if i and model.eos is not None else []) + list(
            model.encode(t)
          )
          ends.append(len(ids))
        (folder / f"{stem}.uint16").write_bytes(np.array(ids, "<u2").tobytes())
        (folder / f"{stem}.ends").write_bytes(np.array(ends, "<i8").tobytes())
        tokens.append(f"{stem}.uint16")
    splits[split] = {
      "documents": len(texts),
      "records": records,
      "tokens": tokens,
    }
  kept = None
  if model is not None:
    kept = {
      "spec": model.spec,
      "file": model.file_name,
      "sha256": hashlib.sha256(model.content).hexdigest(),
    }
    if model.file_name:
      (folder / model.file_name).write_bytes(model.content)
  index = {
    "format": 1,
    "text_key": text_key,
    "splits": splits,
    "tokenizer": kept,
  }
  (folder / "index.json").write_text(json.dumps(index))
  return f"prepared:{folder}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("texts")
  for i, text in enumerate(TEXTS):
    (folder / f"{i:02}.txt").write_text(text)
  spec = "sentencepiece?vocab_size=300&model_type=bpe"
  return tokenizers.get_tokenizer(spec, f"text:{folder}/*.txt")


def all_texts(uri, split):
  source = open_source(uri, split)
  return list(source.read(np.arange(source.length))["text"])


def test_the_splits_are_the_prepared_ones(tmp_path):
  uri = write(tmp_path / "out")
  for split, texts in SPLITS.items():
    assert all_texts(uri, split) == texts
  source = open_source(uri, "train[10:20]+validation[:1]")
  found = source.read(np.array([10, 0, 3]))
  assert list(found["text"]) == [TEXTS[50], TEXTS[10], TEXTS[13]]
  assert source.name(0).endswith("train-00000-of-00003.jsonl:11")
  # A field that a record lacks does not end a run that reads another.
  assert open_source(uri, "train").read(np.array([0]))["n"][0] is None
  # An unprepared shard of no records at all is none the less a shard.
  (tmp_path / "out" / "empty.jsonl").write_text("")
  change(
    tmp_path / "out", lambda x: x["train"]["records"].append("empty.jsonl")
  )
  assert all_texts(uri, "train") == SPLITS["train"]


def change(folder, edit):
  index = json.loads((folder / "index.json").read_text())
  edit(index["splits"])
  (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("kind", ["sentencepiece", "byte", "char"])
@pytest.mark.parametrize(
  "split", ["train", "validation", "all", "train[7:40]+validation[3:]"]
)
def test_tokens_are_those_of_the_text_to_the_bit(kind, split, model, tmp_path):
  plain = write(tmp_path / "plain")
  if kind != "sentencepiece":
    model = tokenizers.get_tokenizer(kind, plain)
  whole = write(tmp_path / "whole", model)

  def file(uri, cache):
    source = open_source(uri, split)
    cache_dir = str(tmp_path / cache)
    return token_file(source, model, uri=uri, split=split, cache_dir=cache_dir)

  # What is not there cannot be tokenized: the tokens are taken as they are.
  for path in (tmp_path / "whole").glob("*.jsonl"):
    path.write_text("gone\n")
  ours, theirs = file(whole, "a"), file(plain, "b")
  assert ours.tokens.dtype == theirs.tokens.dtype
  np.testing.assert_array_equal(ours.tokens, theirs.tokens)
  np.testing.assert_array_equal(ours.ends, theirs.ends)


def test_another_tokenizer_or_field_tokenizes(model, tmp_path):
  uri = write(tmp_path / "out", model)
  byte = tokenizers.get_tokenizer("byte", uri)
  source = open_source(uri, "train")
  options = dict(uri=uri, split="train", cache_dir=str(tmp_path / "c"))
  file = token_file(source, byte, **options)
  joined = b"\0".join(t.encode() for t in SPLITS["train"])
  assert bytes(file.tokens) == joined
  ids = token_file(source, model, text_key="id", **options)
  start = ids.tokens[: int(ids.ends[0])]
  assert model.decode(start) == "train-00000-of-00003/0"


def test_a_run_takes_the_tokenizer_and_keeps_it(model, tmp_path):
  uri = write(tmp_path / "out", model)
  plain = write(tmp_path / "plain")
  (tmp_path / "m.model").write_bytes(model.content)
  common = dict(seq_len=16, batch_size=4, seed=3)
  work = tmp_path / "run"
  ours = pipeline.train(source=uri, tokenizer=uri, workdir=str(work), **common)
  spec = f"sentencepiece:{tmp_path / 'm.model'}"
  theirs = pipeline.train(source=plain, tokenizer=spec, **common)
  for a, b, _ in zip(
    ours.batches(5), theirs.batches(5), range(9), strict=False
  ):
    for leaf in a:
      np.testing.assert_array_equal(a[leaf], b[leaf])
  # A finished run needs the folder no more.
  (tmp_path / "out").rename(tmp_path / "elsewhere")
  kept = tokenizers.kept(uri, str(work))
  assert kept.content == model.content
  assert kept.decode(kept.encode(TEXTS[3])) == TEXTS[3]
  again = tokenizers.get_tokenizer(uri, plain, workdir=str(work))
  assert again.content == model.content


def test_a_mixture_of_prepared_folders_and_its_evaluation(model, tmp_path):
  uri = write(tmp_path / "a", model)
  other = write(tmp_path / "b", model, shards=2)
  mixture = [dict(source=uri, weight=3), dict(source=other, weight=1)]
  common = dict(tokenizer=uri, seq_len=8, cache_dir=str(tmp_path / "c"))
  train = pipeline.train(mixture=mixture, batch_size=8, seed=0, **common)
  first = pipeline.train(source=uri, batch_size=8, **common).num_examples
  index = np.concatenate(
    [b["index"] for b, _ in zip(train.batches(0), range(20), strict=False)]
  )
  assert (index < first).sum() == 3 * (index >= first).sum()
  seen = pipeline.evaluation(mixture=mixture, batch_size=8, **common)
  tokens = sum(int(b["mask"].sum()) for b in seen.batches(0))
  ids = [model.encode(t) for t in SPLITS["validation"]]
  assert tokens == 2 * (sum(map(len, ids)) + len(ids) - 1 - 1)


def break_index(folder, **values):
  index = json.loads((folder / "index.json").read_text())
  (folder / "index.json").write_text(json.dumps({**index, **values}))


@pytest.mark.parametrize(
  ("values", "named"),
  [
    (dict(format=2), "format 2, and this version reads format 1"),
    (dict(splits={}), "no splits"),
    (dict(splits=3), "damaged"),
    (dict(text_key=3), "damaged"),
    (dict(splits={"a/b": {}}), "'a/b' is no name of a split"),
    (
      dict(splits={"train": dict(documents=1, records=["../x"], tokens=[])}),
      r"'\.\./x' is not the name of a file in its folder",
    ),
    (
      dict(splits={"train": dict(documents=1, records=["/x"], tokens=[])}),
      "'/x' is not the name",
    ),
    (
      dict(splits={"train": dict(documents=1, records=[".."], tokens=[])}),
      "is not the name",
    ),
    (dict(splits={"train": dict(documents=-1)}), "-1 documents"),
    (dict(splits={"train": dict(documents=1)}), "no 'records'"),
    (
      dict(splits={"train": dict(documents=1, records=["x"], tokens=[])}),
      "x: No such file",
    ),
    (
      dict(
        splits={
          "train": dict(documents=1, records=["x"], tokens=["x", "y"]),
        }
      ),
      "1 files of records, 2 of tokens",
    ),
  ],
)
def test_a_damaged_index_is_one_line(values, named, tmp_path):
  uri = write(tmp_path / "out")
  break_index(tmp_path / "out", **values)
  with pytest.raises(ValueError, match=named) as error:
    open_source(uri)
  assert "\n" not in str(error.value)
  assert str(tmp_path / "out") in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "null", "\xff"])
def test_an_index_that_is_no_index(text, tmp_path):
  uri = write(tmp_path / "out")
  (tmp_path / "out" / "index.json").write_bytes(text.encode("latin-1"))
  with pytest.raises(ValueError, match="index.json: damaged") as error:
    open_source(uri)
  assert "\n" not in str(error.value)


def test_documents_that_are_gone_are_told(model, tmp_path):
  folder = tmp_path / "out"
  uri = write(folder, model)
  with pytest.raises(ValueError, match="no such file.*prepare"):
    open_source(f"prepared:{tmp_path}")
  path = folder / "train-00001-of-00003.jsonl"
  lines = path.read_text().splitlines(keepends=True)
  path.write_text("".join(lines[:-1]))
  with pytest.raises(ValueError, match="49 records.*lists 50"):
    all_texts(uri, "train")

  source = open_source(uri, "train")
  tokens = folder / "train-00002-of-00003.uint16"
  tokens.write_bytes(tokens.read_bytes()[:-4])
  with pytest.raises(ValueError, match="uint16: damaged"):
    source.tokens.read(np.array([0]), True)
  ends = folder / "train-00000-of-00003.ends"
  ends.write_bytes(ends.read_bytes()[:-8])
  with pytest.raises(ValueError, match="damaged"):
    open_source(uri, "train").tokens.read(np.array([0]), True)


def test_a_tokenizer_that_is_not_the_one_is_told(model, tmp_path):
  uri = write(tmp_path / "out", model)
  (tmp_path / "out" / "tokenizer.model").write_bytes(b"another")
  with pytest.raises(ValueError, match="tokenizer.model: damaged"):
    tokenizers.get_tokenizer(uri, uri)
  plain = write(tmp_path / "plain")
  with pytest.raises(ValueError, match="was not tokenized"):
    tokenizers.get_tokenizer(plain, plain)
  # An id that the tokenizer lacks would read beyond the embedding.
  write(tmp_path / "wide", tokenizers.get_tokenizer("byte", plain))
  path = next((tmp_path / "wide").glob("train-00000*.uint16"))
  ids = np.fromfile(path, "<u2")
  ids[3] = 256
  path.write_bytes(ids.tobytes())
  wide = f"prepared:{tmp_path / 'wide'}"
  with pytest.raises(ValueError, match="token 256"):
    pipeline.train(source=wide, tokenizer=wide, seq_len=8, batch_size=2)


@pytest.mark.parametrize(
  "spec", ["byte", "char", "sentencepiece?vocab_size=300&model_type=bpe"]
)
def test_what_prepare_writes_is_read(spec, tmp_path):
  pytest.importorskip("apache_beam")
  from input_pipeline.preparation import run

  (tmp_path / "in").mkdir()
  lines = [
    json.dumps({"id": f"r{i}", "text": t}) for i, t in enumerate(TEXTS[:60])
  ]
  (tmp_path / "in" / "a.jsonl").write_text("\n".join(lines))
  config = {
    "data": {"source": f"jsonl:{tmp_path}/in/*.jsonl"},
    "stages": [{"name": "split", "fractions": {"validation": 0.3}}],
    "output": {"shard_bytes": 900, "tokenizer": spec},
  }
  run.prepare(config, str(tmp_path / "out"), say=lambda line: None)
  uri = f"prepared:{tmp_path}/out"
  both = [all_texts(uri, split) for split in ("train", "validation")]
  assert sorted(both[0] + both[1]) == sorted(TEXTS[:60])
  assert all(both)
  learned = tokenizers.get_tokenizer(uri, uri)
  for split, found in zip(("train", "validation"), both, strict=True):
    source = open_source(uri, split)
    kept = source.tokens.read(np.arange(source.length), learned.eos is not None)
    for text, ids in zip(found, kept, strict=True):
      np.testing.assert_array_equal(ids, learned.encode(text))
