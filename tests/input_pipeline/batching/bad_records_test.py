"""Bad records: stop with the name, or skip without moving anything else."""

import gzip
import json
import os
import pathlib
import shutil
import sys
import tempfile
import threading

import forkserver
import numpy as np
import pytest

from common.errors import UserError
from input_pipeline import bad_records
from input_pipeline.bad_records import Policy, Skipped, Tally
from input_pipeline.batching import examples as examples_lib
from input_pipeline.batching import pipeline, tf_stream
from input_pipeline.sources import open_source
from train.workdir import run_record

ROOT = pathlib.Path(__file__).parents[3]
OPS = "decode|random_crop(6, pad=2)|flip|noise(5)|scale(-1, 1)"
SKIP = dict(on_bad_record="skip", max_bad_share=0.5)


def png(pixels) -> bytes:
  tf = pytest.importorskip("tensorflow")
  return tf.io.encode_png(pixels).numpy()


def write_images(root, n=24) -> list[pathlib.Path]:
  rng = np.random.default_rng(0)
  paths = []
  for i in range(n):
    path = root / "ab"[i % 2] / f"{i:02}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(rng.integers(0, 256, (6, 6, 3), np.uint8)))
    paths.append(path)
  return paths


def break_images(paths) -> None:
  """Each in another way; the places of the files stay as they are."""
  paths[0].write_bytes(paths[0].read_bytes()[:-20])
  paths[5].write_bytes(b"not an image")
  paths[6].write_bytes(b"")
  paths[13].unlink()
  paths[13].symlink_to("gone")
  paths[20].write_bytes(png(np.zeros((2, 1, 3), np.uint8)))  # for the crop


BROKEN = {0, 5, 6, 13}  # and 20, where there is a crop


def write_lines(path, bad=()) -> None:
  lines = [
    json.dumps({"x": [i / 2, float(i)], "label": i % 3, "s": "é" * i})
    for i in range(30)
  ]
  for place, line in bad:
    lines[place] = line
  path.write_text("\n".join(lines))


BAD_LINES = [
  (0, '{"x": '),
  (7, '{"x": [1, 2, 3], "label": 1, "s": ""}'),
  (8, '{"x": [1, 2], "label": 1.5, "s": ""}'),
  (9, '{"x": [1, NaN], "label": 1, "s": ""}'),
  (11, '{"x": [1, 2], "s": ""}'),
  (12, '{"x": [1, 2], "label": "one", "s": ""}'),
  (13, '{"x": [1, 2], "label": ' + "9" * 30 + ', "s": ""}'),
]


@pytest.fixture(params=["ops", "plain"])
def pair(request, tmp_path):
  """(settings of clean data, of the same with bad records, the bad names)."""
  if request.param == "ops":
    paths = write_images(tmp_path / "clean")
    shutil.copytree(tmp_path / "clean", tmp_path / "bad")
    paths = [
      tmp_path / "bad" / p.relative_to(tmp_path / "clean") for p in paths
    ]
    break_images(paths)
    kinds = [f"folder:{tmp_path / name}" for name in ("clean", "bad")]
    names = {str(paths[i]) for i in BROKEN | {20}}
    return *(dict(source=k, split="all", ops=OPS) for k in kinds), names
  for name, bad in (("clean", ()), ("bad", BAD_LINES)):
    (tmp_path / name).mkdir()
    write_lines(tmp_path / name / "a.jsonl", bad)
  kinds = [f"jsonl:{tmp_path}/{name}/a.jsonl" for name in ("clean", "bad")]
  names = {f"{tmp_path}/bad/a.jsonl:{i + 1}" for i, _ in BAD_LINES}
  return *(dict(source=kind, split="all") for kind in kinds), names


def take(data, first_step, count):
  batches = data.batches(first_step)
  found = [next(batches) for _ in range(count)]
  batches.close()
  return found


def assert_same(first, second):
  assert len(first) == len(second)
  for a, b in zip(first, second, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def joined(batches):
  return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


def assert_padded(clean, bad, names, name_of):
  """The batches of clean data, but for zeros where a record is bad."""
  seen = 0
  for a, b in zip(clean, bad, strict=True):
    gone = np.array([i >= 0 and name_of(i) in names for i in a["index"]])
    seen += gone.sum()
    assert a.keys() == b.keys()
    for field in a:
      nothing = -1 if field == "index" else 0
      assert b[field].dtype == a[field].dtype
      np.testing.assert_array_equal(b[field][~gone], a[field][~gone], field)
      np.testing.assert_array_equal(
        b[field][gone], np.full_like(a[field][gone], nothing), field
      )
  return seen


def test_a_skipped_record_moves_nothing(pair):
  clean_settings, settings, names = pair
  source = open_source(settings["source"], "all", Policy(skip=True))
  clean = pipeline.train(**clean_settings, batch_size=4, seed=3)
  data = pipeline.train(**settings, batch_size=4, seed=3, **SKIP)
  assert data.spec == clean.spec
  assert data.num_examples == clean.num_examples
  whole, expected = take(data, 0, 15), take(clean, 0, 15)
  seen = assert_padded(expected, whole, names, source.name)
  assert seen > len(names)
  skipped = data.skipped()
  assert (skipped.count, skipped.read) == (seen, 60)
  assert set(skipped.names) <= names and len(skipped.names) == min(
    len(names), 5
  )
  # Resumed, and on two hosts.
  again = pipeline.train(**settings, batch_size=4, seed=3, **SKIP)
  assert_same(take(again, 9, 6), whole[9:])
  hosts = [
    take(
      pipeline.train(
        **settings, batch_size=4, seed=3, host_index=h, host_count=2, **SKIP
      ),
      0,
      15,
    )
    for h in range(2)
  ]
  assert_same([joined(step) for step in zip(*hosts, strict=True)], whole)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_evaluation_skips_and_loses_nothing_else(pair, batch_size):
  clean_settings, settings, names = pair
  source = open_source(settings["source"], "all", Policy(skip=True))
  clean = pipeline.evaluation(**clean_settings, batch_size=batch_size)
  data = pipeline.evaluation(
    **settings, batch_size=batch_size, on_bad_record="skip", max_bad_share=1
  )
  whole, expected = list(data.batches(0)), list(clean.batches(0))
  assert assert_padded(expected, whole, names, source.name) == len(names)
  assert data.skipped()[:2] == (len(names), data.num_examples)
  assert_same(list(data.batches(0)), whole)


def test_stop_names_the_first_that_is_met(pair):
  _, settings, names = pair
  with pytest.raises(ValueError) as error:
    data = pipeline.train(**settings, batch_size=4, shuffle=False)
    take(data, 0, 12)
  assert any(name in str(error.value) for name in names)
  assert "\n" not in str(error.value)


def test_only_what_is_missing_is_computed_alone(pair, monkeypatch):
  _, settings, names = pair
  if "ops" not in settings:
    pytest.skip("of the ops alone")
  asked = []
  alone = tf_stream._alone
  monkeypatch.setattr(
    tf_stream, "_alone", lambda *a: asked.append(a[-2]) or alone(*a)
  )
  data = pipeline.evaluation(**settings, batch_size=8, **SKIP)
  asked.clear()
  list(data.batches(0))
  source = open_source(settings["source"], "all", Policy(skip=True))
  # One of them is asked for before, where the first that passes is sought.
  found = {source.name(i) for i in asked}
  assert found == names and len(asked) <= len(names) + 2


def test_a_row_that_only_the_machine_lost_is_there(tmp_path, monkeypatch):
  """Read once in vain: tried again, it is the row it should have been."""
  write_images(tmp_path)
  settings = dict(
    source=f"folder:{tmp_path}", split="all", ops=OPS, batch_size=8
  )
  expected = list(pipeline.evaluation(**settings).batches(0))
  opened = examples_lib.open_source
  failures = {5: 2, 17: 2}  # of the batch, and of the row

  def flaky(*arguments):
    source = opened(*arguments)

    def read(indices):
      for i in indices:
        if failures.get(int(i), 0):
          failures[int(i)] -= 1
          raise ValueError("a network that trembles")
      return source.read(indices)

    return source._replace(read=read)

  monkeypatch.setattr(examples_lib, "open_source", flaky)
  data = pipeline.evaluation(**settings, **SKIP)
  assert_same(list(data.batches(0)), expected)
  assert failures == {5: 0, 17: 0}
  assert data.skipped().count == 0


@pytest.mark.parametrize("ops", ["", OPS])
def test_too_many_are_refused_with_their_names(tmp_path, ops):
  if ops:
    paths = write_images(tmp_path)
    for path in paths[::2]:
      path.write_bytes(b"nothing")
    source, bad = f"folder:{tmp_path}", str(tmp_path)
  else:
    write_lines(tmp_path / "a.jsonl", [(i, "?") for i in range(0, 30, 3)])
    source, bad = f"jsonl:{tmp_path}/a.jsonl", f"{tmp_path}/a.jsonl:"
  settings = dict(source=source, split="all", ops=ops, batch_size=3)
  if ops:  # A run that stops names the way out.
    with pytest.raises(
      ValueError, match=r'; data\.on_bad_record="skip" leaves'
    ):
      take(pipeline.train(**settings), 0, 60)
  data = pipeline.train(**settings, on_bad_record="skip", max_bad_share=0.3)
  with pytest.raises(ValueError) as error:
    take(data, 0, 60)
  line = str(error.value)
  assert "\n" not in line
  count, read, names = data.skipped()
  # A handful is let pass, whatever the share.
  assert count > 5 and count > 0.3 * read
  assert f"{count} of {read} records are bad" in line
  assert "max_bad_share=0.3" in line
  assert names and all(name in line and bad in name for name in names)
  patient = pipeline.train(**settings, on_bad_record="skip", max_bad_share=1)
  assert joined(take(patient, 0, 20))["mask"].sum() > 20


def test_a_handful_is_let_pass():
  tally = Tally(Policy(skip=True, max_bad_share=0.0))
  tally.add(5, [(f"r{i}", "broken") for i in range(5)])
  with pytest.raises(ValueError, match="6 of 1,006 records are bad"):
    tally.add(1001, [("r9", "broken")])
  assert tally.skipped() == Skipped(6, 1006, tuple(f"r{i}" for i in range(5)))


def test_counting_from_many_threads():
  tally = Tally(Policy(skip=True, max_bad_share=1.0))

  def add():
    for i in range(300):
      tally.add(3, [(f"r{i % 3}", "broken")])

  threads = [threading.Thread(target=add) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert tally.skipped()[:2] == (2400, 7200)
  assert sorted(tally.skipped().names) == ["r0", "r1", "r2"]
  assert [tally.news() for _ in range(3)].count("") == 2


def test_no_record_that_passes_is_said_and_not_sought_for_ever(tmp_path):
  write_images(tmp_path, 6)
  with pytest.raises(ValueError, match=r"no record passes the ops: .*\.png"):
    pipeline.train(
      source=f"folder:{tmp_path}",
      split="all",
      ops="decode|central_crop(64)",
      batch_size=4,
      on_bad_record="skip",
      max_bad_share=1.0,
    )
  (tmp_path / "a.jsonl").write_text("?\n!\n")
  with pytest.raises(ValueError, match=r"a\.jsonl:1: not JSON"):
    open_source(f"jsonl:{tmp_path}/a.jsonl", "all", Policy(skip=True))


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("on_bad_record", "ignore"),
    ("max_bad_share", 1.5),
    ("max_bad_share", "much"),
    ("max_record_bytes", 0),
    ("max_record_bytes", 2.5),
  ],
)
def test_a_wrong_policy_is_named(key, value):
  for function in (pipeline.train, pipeline.evaluation):
    with pytest.raises(ValueError, match=f"{key} {value!r}"):
      function(source="fake:linear", batch_size=4, **{key: value})


def test_what_is_told():
  few = Skipped(2, 15_000, ("a", "b"))
  assert str(few) == "2 of 15,000 records skipped: a, b"
  assert str(few._replace(count=3)).endswith("a, b, …")
  data = pipeline.train(source="fake:linear", batch_size=4)
  said = []
  stream = bad_records.telling(data, 0, said.append)
  next(stream)
  stream.close()
  assert said == []


def text_corpus(tmp_path):
  for i in range(12):
    (tmp_path / f"{i:02}.txt").write_text(f"document {i} é")
  (tmp_path / "03.txt").write_bytes(b"caf\xe9")
  (tmp_path / "05.txt").unlink()
  (tmp_path / "05.txt").symlink_to("gone")
  (tmp_path / "07.txt").write_bytes(b"x" * 5000)
  return f"text:{tmp_path}/*.txt", {3, 5, 7}


@pytest.mark.parametrize("tokenizer", ["byte", "char"])
def test_a_token_file_leaves_bad_documents_out(tmp_path, tokenizer):
  (tmp_path / "text").mkdir()
  uri, bad = text_corpus(tmp_path / "text")
  settings = dict(
    source=uri,
    split="all",
    tokenizer=tokenizer,
    seq_len=4,
    batch_size=8,
    cache_dir=str(tmp_path / "cache"),
    max_record_bytes=4000,
  )
  skip = dict(on_bad_record="skip", max_bad_share=0.5)
  data = pipeline.evaluation(**settings, **skip)
  whole = joined(list(data.batches(0)))
  good = [f"document {i} é" for i in range(12) if i not in bad]
  expected = (b"\0" if tokenizer == "byte" else b"").join(
    text.encode() for text in good
  )
  tokens = [
    data.tokenizer.encode(good[0])[0],
    *whole["targets"][whole["mask"] > 0],
  ]
  if tokenizer == "byte":
    assert bytes(int(t) for t in tokens) == expected
  else:
    assert data.tokenizer.decode(tokens).encode() == expected
  count, read, names = data.skipped()
  assert (count, read) == (3, 12)
  assert [name[-6:] for name in names] == ["03.txt", "05.txt", "07.txt"]
  # From the cache: the same counts, the same news.
  again = pipeline.evaluation(**settings, **skip)
  assert again.skipped() == data.skipped()
  assert again.news() == data.news() != ""
  # Another policy is another file, and a smaller share is refused.
  with pytest.raises(ValueError, match=r"03\.txt: not UTF-8"):
    pipeline.evaluation(**settings)
  larger = {**settings, "max_record_bytes": 6000}
  assert pipeline.evaluation(**larger, **skip).skipped().count == 2


def test_a_share_that_was_granted_is_asked_for_again(tmp_path):
  for i in range(20):
    (tmp_path / f"{i:02}.txt").write_bytes(b"\xff" if i % 2 else b"fine")
  settings = dict(
    source=f"text:{tmp_path}/*.txt",
    split="all",
    tokenizer="byte",
    seq_len=4,
    batch_size=8,
    on_bad_record="skip",
  )
  assert pipeline.train(**settings, max_bad_share=0.5).skipped().count == 10
  with pytest.raises(ValueError, match="10 of 20 records .* max_bad_share=0.4"):
    pipeline.train(**settings, max_bad_share=0.4)


def test_counts_that_are_lost_are_counted_again(tmp_path):
  (tmp_path / "text").mkdir()
  uri, _ = text_corpus(tmp_path / "text")
  cache = tmp_path / "cache"
  settings = dict(source=uri, split="all", tokenizer="byte", seq_len=4)
  settings |= dict(batch_size=8, cache_dir=str(cache), **SKIP)
  counted = pipeline.train(**settings).skipped()
  (beside,) = cache.glob("*.skipped.json")
  for content in (None, b"{", b'{"count": 1}'):
    beside.unlink() if content is None else beside.write_bytes(content)
    assert pipeline.train(**settings).skipped() == counted


def test_a_document_that_is_no_text(tmp_path):
  """Neither a number nor half a surrogate pair is tokenized, or a crash."""
  lines = ['{"text": "one"}', '{"text": 2}', '{"text": "\\ud800"}']
  lines += ['{"text": null}', '{"text": ["two"]}', '{"text": "three"}']
  (tmp_path / "a.jsonl").write_text("\n".join(lines))
  settings = dict(source=f"jsonl:{tmp_path}/a.jsonl", split="all", seq_len=4)
  for tokenizer in ("byte", "char"):
    settings |= dict(tokenizer=tokenizer, batch_size=1)
    with pytest.raises(
      ValueError, match=r"a\.jsonl:2: the field 'text' is not"
    ):
      pipeline.train(**settings)
    data = pipeline.train(**settings, **SKIP)
    assert data.skipped()[:2] == (4, 6)
    text = b"one\0three" if tokenizer == "byte" else b"onethree"
    (batch,) = take(data, 0, 1)
    ids = [*batch["inputs"][0], batch["targets"][0, -1]]
    assert data.tokenizer.decode(ids).encode() in text
  learned = "sentencepiece?vocab_size=265"
  settings |= dict(tokenizer=learned, seq_len=1)
  if pytest.importorskip("sentencepiece"):
    assert pipeline.train(**settings, **SKIP).skipped()[:2] == (4, 6)


@pytest.mark.parametrize("place", [0, 1])
def test_a_bad_record_of_a_component_is_a_masked_row(pair, place):
  clean_settings, settings, names = pair
  source = open_source(settings["source"], "all", Policy(skip=True))
  n = source.length
  good = dict(source=clean_settings.pop("source"), weight=2)
  rest = dict(**clean_settings, batch_size=6, seed=3)
  mixture = [good, good]
  clean = pipeline.train(mixture=mixture, **rest)
  mixture[place] = dict(good, source=settings["source"])
  data = pipeline.train(mixture=mixture, **rest, **SKIP)

  def name_of(index):
    return source.name(index % n) if index // n == place else "good"

  whole, expected = take(data, 0, 15), take(clean, 0, 15)
  seen = assert_padded(expected, whole, names, name_of)
  assert seen > len(names)
  assert data.skipped()[:2] == (seen, 90)
  assert set(data.skipped().names) <= names
  again = pipeline.train(mixture=mixture, **rest, **SKIP)
  assert_same(take(again, 7, 8), whole[7:])
  hosts = [
    take(
      pipeline.train(
        mixture=mixture, **rest, host_index=h, host_count=2, **SKIP
      ),
      0,
      15,
    )
    for h in range(2)
  ]
  assert_same([joined(step) for step in zip(*hosts, strict=True)], whole)
  passes = [
    pipeline.evaluation(mixture=m, **{**clean_settings, **policy}, batch_size=7)
    for m, policy in (([good, good], {}), (mixture, SKIP))
  ]
  found = [list(each.batches(0)) for each in passes]
  assert assert_padded(*found, names, name_of) == len(names)
  assert passes[1].skipped()[:2] == (len(names), 2 * n)


@pytest.mark.parametrize(("line", "record"), BAD_LINES[1:])
def test_stop_names_a_record_of_a_component(tmp_path, line, record):
  """Even one that differs from the other component's in its shape alone."""
  for name, bad in (("good", ()), ("bad", [(line, record)])):
    write_lines(tmp_path / f"{name}.jsonl", bad)
  mixture = [
    dict(source=f"jsonl:{tmp_path}/{name}.jsonl") for name in ("good", "bad")
  ]
  data = pipeline.train(mixture=mixture, split="all", batch_size=8)
  with pytest.raises(ValueError, match=rf"bad\.jsonl:{line + 1}: "):
    take(data, 0, 8)


def text_mixture(tmp_path, keep_bad):
  """Two components, of 12 and of 40 texts; 2 and 4 of them bad, or not there.

  Returns:
    the mixture, and the names of what is bad.
  """
  folder = tmp_path / ("bad" if keep_bad else "clean")
  folder.mkdir()
  texts = {i: f"document {i} é".encode() * (i % 4 + 1) for i in range(12)}
  lines = [json.dumps({"body": f"line {i} " * (i % 7 + 1)}) for i in range(40)]
  for i in (0, 5):
    texts[i] = b"caf\xe9"
  bad = {0: '{"body": "li', 9: '{"body": 3}', 10: "{}", 39: "\x00"}
  for i, line in bad.items():
    lines[i] = line
  if not keep_bad:
    texts = {i: text for i, text in texts.items() if i not in (0, 5)}
    lines = [line for i, line in enumerate(lines) if i not in bad]
  for i, text in texts.items():
    (folder / f"{i:02}.txt").write_bytes(text)
  (folder / "a.jsonl").write_text("\n".join(lines))
  names = [f"{folder}/{i:02}.txt" for i in (0, 5)]
  names += [f"{folder}/a.jsonl:{i + 1}" for i in bad]
  return [
    dict(source=f"text:{folder}/*.txt", weight=1),
    dict(source=f"jsonl:{folder}/a.jsonl", text_key="body", weight=2),
  ], names


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("tokenizer", ["byte", "char"])
def test_a_mixture_of_texts_is_that_of_its_good_ones(
  tmp_path, tokenizer, packing
):
  clean, _ = text_mixture(tmp_path, keep_bad=False)
  mixture, names = text_mixture(tmp_path, keep_bad=True)
  settings = dict(split="all", tokenizer=tokenizer, seq_len=16, batch_size=4)
  settings |= dict(packing=packing, cache_dir=str(tmp_path / "cache"))
  expected = pipeline.train(mixture=clean, **settings)
  data = pipeline.train(mixture=mixture, **settings, **SKIP)
  assert data.num_examples == expected.num_examples
  assert data.spec == expected.spec
  whole = take(data, 0, 40)
  assert len(np.unique(joined(whole)["index"])) == data.num_examples
  assert_same(whole, take(expected, 0, 40))
  assert data.skipped() == Skipped(6, 52, tuple(names[:5]))
  # What the components have counted is counted together, from the cache too.
  again = pipeline.train(mixture=mixture, **settings, **SKIP)
  assert again.skipped() == data.skipped()
  assert again.news() == data.news() != ""
  assert_same(take(again, 23, 17), whole[23:])
  hosts = [
    pipeline.train(
      mixture=mixture, **settings, host_index=h, host_count=2, **SKIP
    )
    for h in range(2)
  ]
  hosts = [take(each, 0, 9) for each in hosts]
  assert_same([joined(s) for s in zip(*hosts, strict=True)], whole[:9])
  passes = [
    list(pipeline.evaluation(mixture=m, **settings, **policy).batches(0))
    for m, policy in ((clean, {}), (mixture, SKIP))
  ]
  assert_same(*passes)
  with pytest.raises(ValueError, match="6 of 52 records .* max_bad_share=0.1"):
    few = dict(SKIP, max_bad_share=0.1)
    pipeline.train(mixture=mixture, **settings, **few)
  with pytest.raises(
    ValueError, match=r"(00\.txt: not UTF-8|a\.jsonl:1: not JSON)"
  ):
    pipeline.train(mixture=mixture, **settings)


def test_sentencepiece_of_the_good_texts_of_all_components(tmp_path):
  pytest.importorskip("sentencepiece")
  mixture, _ = text_mixture(tmp_path, keep_bad=True)
  settings = dict(split="all", seq_len=4, batch_size=4)
  settings |= dict(tokenizer="sentencepiece?vocab_size=300&model_type=bpe")
  settings |= dict(cache_dir=str(tmp_path / "cache"))
  data = pipeline.train(mixture=mixture, **settings, **SKIP)
  assert data.skipped()[:2] == (6, 52)
  for word in ("document", "line"):
    assert len(data.tokenizer.encode(f"{word} ")) < 4
  with pytest.raises(ValueError, match="not UTF-8|not JSON|not text|no field"):
    pipeline.train(mixture=mixture, **settings)


def test_skipping_is_of_records_and_not_of_components(tmp_path):
  mixture, _ = text_mixture(tmp_path, keep_bad=True)
  settings = dict(split="all", tokenizer="byte", seq_len=4, batch_size=4)
  settings |= dict(on_bad_record="skip", max_bad_share=1)
  for packing in (False, True):
    with pytest.raises(ValueError, match=r"gone\.jsonl matches no file"):
      pipeline.train(
        mixture=[*mixture, dict(mixture[1], source="jsonl:/gone.jsonl")],
        packing=packing,
        **settings,
      )
    for name, content, said in (
      ("garbage", "?\n!\n", r"garbage\.jsonl:1: not JSON"),
      ("numbers", '{"body": [1, 2]}\n{"body": 2}', "is not text"),
      (
        "nothing",
        '{"body": null}\n{"body": null}',
        r"mixture\[2\] jsonl:.*nothing\.jsonl all has (0|no) ",
      ),
    ):
      path = tmp_path / f"{name}.jsonl"
      path.write_text(content)
      with pytest.raises(ValueError, match=said) as error:
        pipeline.train(
          mixture=[*mixture, dict(mixture[1], source=f"jsonl:{path}")],
          packing=packing,
          **settings,
        )
      assert str(path) in str(error.value) and "\n" not in str(error.value)


def shard_good(path, first=0):
  lines = [f'{{"text": "line {first + i}"}}' for i in range(4)]
  data = "\n".join(lines).encode()
  path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _vanish(path):
  path.unlink()
  path.symlink_to(path.parent / "gone")


def _cut(path):
  path.write_bytes(path.read_bytes()[:-9])


def _flip(path):
  data = bytearray(path.read_bytes())
  data[-6] ^= 1  # of the sum at the end
  path.write_bytes(data)


FAULTS = {
  "gone": (_vanish, "No such file"),
  "empty": (lambda path: path.write_bytes(b""), "holds no record"),
  "blank": (lambda path: path.write_bytes(b"\n \n"), "holds no record"),
  "no gzip": (lambda path: path.write_bytes(b"x" * 99), "broken gzip"),
  "cut": (_cut, "broken gzip"),
  "flipped": (_flip, "broken gzip"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_shard_that_is_broken(tmp_path, fault, suffix):
  """As a whole: even what could be read of it before it breaks."""
  if not suffix and "gzip" in FAULTS[fault][1]:
    pytest.skip("of compressed shards")
  for i in range(3):
    shard_good(tmp_path / f"{i}.jsonl{suffix}", 4 * i)
  broken = tmp_path / f"1.jsonl{suffix}"
  hurt, said = FAULTS[fault]
  hurt(broken)
  if fault == "blank" and suffix:
    broken.write_bytes(gzip.compress(b"\n \n"))
  if fault == "empty" and suffix:
    broken.write_bytes(gzip.compress(b""))
  uri = f"jsonl:{tmp_path}/*.jsonl{suffix}"
  with pytest.raises(ValueError, match=said) as error:
    open_source(uri, "all")
  assert str(broken) in str(error.value) and "\n" not in str(error.value)
  settings = dict(source=uri, split="all", tokenizer="byte", seq_len=2)
  data = pipeline.train(**settings, batch_size=2, **SKIP)
  assert data.skipped() == Skipped(1, 9, (str(broken),))
  assert said in data.news()
  source = open_source(uri, "all", Policy(skip=True))
  assert source.length == 9 and source.name(4) == str(broken)
  good = np.array([0, 1, 2, 3, 5, 6, 7, 8])
  assert list(source.read(good)["text"]) == [
    f"line {i}" for i in (0, 1, 2, 3, 8, 9, 10, 11)
  ]


def test_a_file_that_goes_after_it_was_opened(tmp_path):
  for i in range(3):
    shard_good(tmp_path / f"{i}.jsonl", 4 * i)
  source = open_source(f"jsonl:{tmp_path}/*", "all")
  (tmp_path / "1.jsonl").unlink()
  with pytest.raises(ValueError, match=r"1\.jsonl: No such file"):
    source.read(np.array([0, 5]))
  os.truncate(tmp_path / "2.jsonl", 3)
  with pytest.raises(ValueError, match=r"2\.jsonl:1: not JSON"):
    source.read(np.array([8]))


@pytest.fixture
def nobody():
  """Runs as a user who may read nothing that is closed to others."""
  if os.geteuid():
    yield
    return
  os.seteuid(65534)
  yield
  os.seteuid(0)


@pytest.fixture
def open_folder():
  """A folder that any user can reach."""
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    yield pathlib.Path(folder)


@pytest.fixture
def closed(open_folder):
  """(text glob, jsonl glob, folder of images) with closed files in them."""
  for name in "abc":
    (open_folder / f"{name}.txt").write_text(f"text {name}")
    shard_good(open_folder / f"{name}.jsonl")
    (open_folder / "images" / name).mkdir(parents=True)
    (open_folder / "images" / name / "x.png").write_bytes(b"x")
  for path in ("b.txt", "b.jsonl", "images/b"):
    os.chmod(open_folder / path, 0)
  yield open_folder
  os.chmod(open_folder / "images/b", 0o755)


def test_a_file_that_may_not_be_read(closed, nobody):
  with pytest.raises(ValueError, match=r"b\.txt: Permission denied"):
    open_source(f"text:{closed}/*.txt", "all").read(np.arange(3))
  with pytest.raises(ValueError, match=r"b\.jsonl: Permission denied"):
    open_source(f"jsonl:{closed}/*.jsonl", "all")
  with pytest.raises(ValueError, match=r"images/b: Permission denied"):
    open_source(f"folder:{closed}/images", "all")
  skip = Policy(skip=True)
  assert open_source(f"jsonl:{closed}/*.jsonl", "all", skip).length == 9
  source = open_source(f"folder:{closed}/images", "all", skip)
  assert source.length == 3
  _, found, errors = bad_records.surviving(source.read, np.arange(3))
  assert len(found) == 2
  assert [source.name(i) for i in errors] == [f"{closed}/images/b"]


def test_empty_texts_are_told_of_and_are_no_error(tmp_path):
  for name in "abcd":
    (tmp_path / f"{name}.txt").write_text("" if name in "bd" else name * 9)
  data = pipeline.train(
    source=f"text:{tmp_path}/*.txt",
    split="all",
    tokenizer="byte",
    seq_len=4,
    batch_size=1,
  )
  assert f"2 of 4 files are empty: {tmp_path}/b.txt, …" in data.note


def test_a_tfds_shard_that_is_gone(tmp_path):
  tfds = pytest.importorskip("tensorflow_datasets")
  pytest.importorskip("array_record")

  class Small(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = {"x": tfds.features.Tensor(shape=(2,), dtype=np.float32)}
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for i in range(30):
        yield i, {"x": np.array([i, 2 * i], np.float32)}

  config = tfds.download.DownloadConfig(num_shards=3)
  Small(data_dir=tmp_path).download_and_prepare(
    file_format="array_record", download_config=config
  )
  uri = f"tfds:small?data_dir={tmp_path}"
  shards = sorted((tmp_path / "small" / "1.0.0").glob("*array_record*"))
  assert len(shards) == 3
  settings = dict(source=uri, split="all", batch_size=30)
  (whole,) = pipeline.evaluation(**settings).batches(0)
  for hurt in (lambda p: os.truncate(p, 20_000), pathlib.Path.unlink):
    hurt(shards[1])
    with pytest.raises(ValueError, match=shards[1].name) as error:
      list(pipeline.evaluation(**settings).batches(0))
    assert "\n" not in str(error.value)
    data = pipeline.evaluation(**settings, **SKIP)
    (batch,) = data.batches(0)
    kept = batch["index"] >= 0
    count = data.skipped().count
    assert 5 < count < 15 and kept.sum() == 30 - count
    np.testing.assert_array_equal(batch["x"][kept], whole["x"][kept])


def claim(workdir, config):
  """UserError where a run of the config may not go on there."""
  run_record.check(str(workdir), config, {})


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_another_policy(tmp_path):
  data = dict(source="x:", max_record_bytes=9)
  config = dict(data=data, seed=0)
  (tmp_path / "config.json").write_text(json.dumps(config))
  patient = dict(on_bad_record="skip", max_bad_share=0.1)
  claim(tmp_path, {**config, "data": {**data, **patient}})
  # What is a bad record is part of what is learned.
  with pytest.raises(UserError, match=r"config\.data\.max_record_bytes"):
    claim(tmp_path, {**config, "data": {**data, "max_record_bytes": 10}})
  with pytest.raises(UserError, match=r"config\.on_bad_record"):
    claim(tmp_path, {**config, "on_bad_record": "skip"})


def main(*arguments):
  return forkserver.run(
    [sys.executable, "-m", "train.main", *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_a_run_goes_on_and_tells(tmp_path):
  paths = write_images(tmp_path / "images")
  break_images(paths)
  arguments = [
    "--config=conv_fashion_mnist:smoke",
    f"--config.data.source=folder:{tmp_path / 'images'}",
    "--config.data.split=all",
    "--config.data.ops=decode(3)|resize(8)|scale(-1, 1)",
    "--config.evals.test.ops=decode(3)|resize(8)|scale(-1, 1)",
    "--config.evals.test.split=all",
  ]
  done = main(
    *arguments,
    "--config.data.on_bad_record=skip",
    "--config.data.max_bad_share=0.5",
    f"--workdir={tmp_path / 'run'}",
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  first = [line for line in lines if "skipped " in line and " of " not in line]
  assert any(not line.startswith("test: ") for line in first)
  (training,) = (
    line
    for line in lines
    if "records skipped: " in line and not line.startswith("test: ")
  )
  (evaluated,) = (
    line for line in lines if line.startswith("test: ") and " of " in line
  )
  assert evaluated.startswith("test: 4 of 24 records skipped: ")
  assert any(str(paths[i]) in training for i in BROKEN)
