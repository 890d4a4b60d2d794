"""Buckets of length: their order, shapes and padding."""

import gzip
import itertools
import json
import re
import tarfile

import numpy as np
import pytest

from input_pipeline.batching import buckets, pipeline

ROWS = {"name": "translation", "packing": False}


def column(lengths):
  return np.asarray(lengths, np.int32)[:, None]


@pytest.fixture
def pairs(tmp_path):
  """200 pairs of texts of 1 to 29 bytes, and their settings."""
  rng = np.random.default_rng(0)
  sizes = rng.integers(1, 30, (200, 2))
  lines = [json.dumps({"source": "a" * s, "target": "b" * t}) for s, t in sizes]
  path = tmp_path / "pairs.jsonl"
  path.write_text("\n".join(lines))
  return sizes.max(1) + 1, {
    "source": f"jsonl:{path}",
    "split": "all",
    "tokenizer": "byte",
    "seq_len": 32,
    "rows": ROWS,
    "cache_dir": str(tmp_path / "cache"),
  }


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_fitted_bounds_have_the_least_padding(count):
  rng = np.random.default_rng(count)
  lengths = rng.choice([1, 2, 5, 6, 7, 11, 12], 60)
  values = np.unique(lengths)

  def slots(bounds):
    return np.asarray(bounds)[np.searchsorted(bounds, lengths)].sum()

  least = min(
    slots([*some, values[-1]])
    for some in itertools.combinations(values[:-1], min(count, len(values)) - 1)
  )
  found = buckets.fitted(lengths, count)
  assert len(found) <= count and slots(found) == least


def test_a_bucket_smaller_than_a_batch_is_merged():
  lengths = column([3] * 8 + [9] * 2 + [20] * 9 + [31])
  assert buckets.made(lengths, [4, 10, 20, 32], 8).bounds == (4, 32)
  assert buckets.made(lengths, [4, 10, 20, 32, 64]).bounds == (4, 10, 20, 32)
  with pytest.raises(ValueError, match="1 of 20 examples are longer than 20"):
    buckets.made(lengths, [4, 20])
  said = "; the longest example has a length of 31 only"
  assert str(buckets.made(lengths, [100])).endswith(said)
  assert said not in str(buckets.made(lengths, [62]))


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_example_is_seen_once_in_an_epoch(shuffle):
  lengths = column(np.random.default_rng(1).integers(1, 65, 333))
  found = buckets.made(lengths, [16, 32, 64], 8)
  plan = buckets.train_plan(found, 8, np.arange(8), 5, shuffle)
  seen, epochs = [], 3
  steps = -(-333 // 8)
  for step in range(epochs * steps):
    rows = plan.rows(step)[0]
    assert len(set(found.bucket[rows])) == 1
    assert lengths[rows].max() <= plan.length(step)
    seen.extend(rows)
    if (step + 1) % steps == 0:
      epoch = (step + 1) // steps
      times = np.bincount(seen, minlength=333)
      # What is left of an epoch, less than three batches of each bucket.
      assert set(times) <= {epoch - 1, epoch, epoch + 1}
      assert (times != epoch).sum() < 3 * 3 * 8
  if not shuffle:
    first = [i for i in seen[: 3 * 40] if found.bucket[i] == 1]
    assert first == sorted(first)


def test_a_batch_depends_on_its_step_alone(pairs):
  """On any first step, and for any number of hosts."""
  lengths, settings = pairs
  settings |= {"batch_size": 8, "seed": 3, "buckets": [10, 20, 32]}
  data = pipeline.train(**settings)
  stream = data.batches(0)
  batches = [next(stream) for _ in range(30)]
  shapes = {batch["inputs"].shape[1] for batch in batches}
  assert shapes == {10, 20, 32}
  assert data.spec["inputs"].shape == (32,)
  assert data.note.startswith("3 shapes are compiled")
  mean = np.mean([10 if n <= 10 else 20 if n <= 20 else 32 for n in lengths])
  assert data.share == pytest.approx(mean / 32)
  for batch in batches:
    T = batch["inputs"].shape[1]
    assert {batch[k].shape[1] for k in ("targets", "mask", "segments")} == {T}
    longest = lengths[batch["index"]]
    assert longest.max() <= T and longest.min() > {10: 0, 20: 10, 32: 20}[T]
    # The texts themselves are whole.
    np.testing.assert_array_equal(
      np.maximum(batch["input_segments"].sum(1), batch["segments"].sum(1)),
      longest,
    )
  # Resumed in the middle of the first epoch of the buckets, and of the second.
  for hosts, start in ((1, 7), (1, 27), (2, 7), (4, 26)):
    parts = [
      pipeline.train(**settings, host_index=i, host_count=hosts).batches(start)
      for i in range(hosts)
    ]
    for step in range(start, start + 3):
      each = [next(part) for part in parts]
      for name, leaf in batches[step].items():
        joined = np.concatenate([one[name] for one in each])
        np.testing.assert_array_equal(joined, leaf)


def test_an_evaluation_keeps_its_order(pairs):
  lengths, settings = pairs
  data = pipeline.evaluation(**settings, batch_size=16, buckets=[16, 32])
  whole = pipeline.evaluation(**settings, batch_size=16)
  for batch, full in zip(data.batches(0), whole.batches(0), strict=True):
    T = batch["inputs"].shape[1]
    longest = lengths[full["index"][full["index"] >= 0]].max()
    assert (T == 16) == (longest <= 16)
    for name, leaf in full.items():
      wanted = leaf[:, :T] if leaf.ndim > 1 else leaf
      np.testing.assert_array_equal(batch[name], wanted)


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"buckets": [32, 16]}, "buckets=.*is neither ascending lengths"),
    ({"buckets": 0}, "nor their number"),
    (
      {"buckets": [10**8]},
      "bucket of length 100000000 is more than 1,000 times",
    ),
    ({"buckets": [8]}, "of 200 examples are longer than 8, at most 30"),
    ({"buckets": [32], "batch_size": "all"}, "leave one of them out"),
    (
      {
        "buckets": [32],
        "rows": None,
        "tokenizer": None,
        "source": "fake:image",
      },
      "the data have none",
    ),
  ],
)
def test_wrong_buckets_are_one_line(pairs, changes, line):
  settings = {**pairs[1], "batch_size": 8, **changes}
  with pytest.raises(ValueError, match=line):
    pipeline.train(**settings)


@pytest.mark.shared_data
def test_padding_is_small_on_multi30k(shared_data, tmp_path):
  """By words, of a part of the pairs."""
  sides = []
  for name in ("de", "en"):
    path = shared_data / "mt_multi30k" / f"train.{name}.gz"
    sides.append(gzip.decompress(path.read_bytes()).decode().splitlines())
  lines = [
    json.dumps({"source": a, "target": b})
    for a, b in itertools.islice(zip(*sides, strict=True), 4000)
  ]
  (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
  data = pipeline.train(
    source=f"jsonl:{tmp_path}/pairs.jsonl",
    split="all",
    tokenizer="word",
    seq_len=64,
    rows=ROWS,
    cache_dir=str(tmp_path),
    batch_size=64,
    buckets=8,
  )
  said = re.fullmatch(r"\d shapes are compiled.*; (\S+) % padding", data.note)
  real = slots = 0
  stream = data.batches(0)
  for _ in range(63):
    batch = next(stream)
    for name in ("input_segments", "segments"):
      real += (batch[name] > 0).sum()
      slots += batch[name].size
  assert 1 - real / slots < 0.15
  assert 100 * (1 - real / slots) == pytest.approx(float(said[1]), abs=1)


@pytest.mark.shared_data
def test_padding_is_small_on_spoken_digits(shared_data, tmp_path):
  """Ragged fields become leaves of a bucket's length, with a mask."""
  for part in ("a", "b"):
    (tmp_path / "digits" / part).mkdir(parents=True)
  with tarfile.open(shared_data / "speech_fsdd" / "test.tar") as tar:
    for i, member in enumerate(tar.getmembers()[::2]):
      content = tar.extractfile(member).read()
      folder = tmp_path / "digits" / "ab"[i % 2]
      (folder / member.name).write_bytes(content)
  data = pipeline.train(
    source=f"audio:{tmp_path}/digits",
    split="all",
    ops='mono|keep("audio")',
    cache_dir=str(tmp_path),
    batch_size=10,
    buckets=8,
  )
  assert data.spec["audio"].axes == data.spec["audio_mask"].axes == ("time",)
  real = slots = 0
  batches = data.batches(0)
  for _ in range(15):
    batch = next(batches)
    assert batch["audio"].shape == batch["audio_mask"].shape
    assert not batch["audio"][batch["audio_mask"] == 0].any()
    real += batch["audio_mask"].sum()
    slots += batch["audio_mask"].size
  batches.close()
  assert 1 - real / slots < 0.15
