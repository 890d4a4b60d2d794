"""Ragged fields: from the source through the ops to a batch of one shape."""

import json
import pathlib
import sys

import forkserver
import numpy as np
import pytest

from input_pipeline.batching import pipeline
from input_pipeline.sources import Source

pytest.importorskip("tensorflow")
ROOT = pathlib.Path(__file__).parents[3]
LENGTHS = (3, 0, 5, 1, 4, 2)


def record(i):
  rng = np.random.default_rng(i)
  return {
    "boxes": rng.uniform(0, 9, (LENGTHS[i], 4)).astype(np.float32),
    "classes": rng.integers(0, 2**40 if i == 9 else 7, LENGTHS[i]),
    "label": np.int32(i),
  }


@pytest.fixture
def opened(monkeypatch):
  """Makes every source one of six records with boxes."""

  def read(indices):
    found = [record(int(i)) for i in indices]
    rows = {"label": np.array([each["label"] for each in found], np.int32)}
    for name in ("boxes", "classes"):
      rows[name] = np.empty(len(found), object)
      rows[name][:] = [each[name] for each in found]
    return rows

  source = Source(len(LENGTHS), read, lambda i: f"record {i}")
  from input_pipeline.batching import examples

  monkeypatch.setattr(examples, "open_source", lambda *_: source)


def data(ops, **settings):
  settings = dict(source="npy:none", batch_size=3, ops=ops) | settings
  return pipeline.train(**settings)


PADS = 'pad(5, inkey="boxes", fill=-1)|pad(5, inkey="classes")'


@pytest.mark.parametrize("skip", ["stop", "skip"])
def test_padded_boxes_are_those_of_the_source(opened, skip):
  found = data(PADS, on_bad_record=skip)
  assert found.spec["boxes"][:2] == ((5, 4), np.float32)
  assert found.spec["classes_mask"][:2] == ((5,), np.float32)
  stream = found.batches(0)
  seen = []
  for _ in range(2):
    batch = next(stream)
    for row, i in enumerate(batch["index"]):
      want, n = record(i), LENGTHS[i]
      np.testing.assert_array_equal(batch["boxes"][row][:n], want["boxes"])
      assert (batch["boxes"][row][n:] == -1).all()
      np.testing.assert_array_equal(batch["classes"][row][:n], want["classes"])
      np.testing.assert_array_equal(batch["boxes_mask"][row], np.arange(5) < n)
      seen.append(int(i))
  assert sorted(seen) == list(range(6))
  again = next(found.batches(1))
  np.testing.assert_array_equal(again["boxes"], batch["boxes"])


@pytest.mark.parametrize(
  ("ops", "line"),
  [
    ("", "the length of the field 'boxes' differs between records"),
    (
      'pad(5, inkey="boxes")',
      r"leave the field 'classes' with the shape \[\?\]",
    ),
    ('pad(5, inkey="label")', "the field 'label' has no axis to pad"),
    (
      'pad("5", inkey="boxes")|keep("boxes")',
      "size='5' is not a positive integer",
    ),
    (
      'crop_or_pad(True, inkey="boxes")',
      "op 'crop_or_pad': size=True is not a whole number",
    ),
    ('pad(0, inkey="boxes")', "size=0 is not a positive integer"),
    ('pad(5, inkey="box")', "no field 'box'"),
    (
      'pad(5, inkey="boxes", longer="cut")',
      "longer='cut'; valid: error, first",
    ),
  ],
)
def test_what_has_no_one_shape_is_named(opened, ops, line):
  with pytest.raises(ValueError, match=line):
    data(ops)


def test_a_longer_record_is_an_error_or_is_cut(opened):
  ops = 'keep("boxes")|pad(3, inkey="boxes"{})'
  with pytest.raises(ValueError, match="record 4: .*more than 3 elements"):
    list(zip(range(2), data(ops.format("")).batches(0), strict=False))
  found = data(ops.format(', longer="first"'))
  for _, batch in zip(range(2), found.batches(0), strict=False):
    for row, i in enumerate(batch["index"]):
      want = record(i)["boxes"][:3]
      np.testing.assert_array_equal(batch["boxes"][row][: len(want)], want)


def test_an_argument_that_fails_late_is_one_line(opened):
  ops = 'keep("boxes")|pad(5, inkey="boxes", fill="x")'
  with pytest.raises(ValueError, match="ops.*: Cast string to float"):
    next(data(ops).batches(0))
  with pytest.raises(ValueError, match="op 'pad': fill='x' is not a number"):
    data(ops, on_bad_record="skip")


def test_a_field_without_elements_is_named_or_left_out(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text('{"x": [], "y": 1}\n' * 4)
  given = {"source": f"jsonl:{path}", "split": "all", "batch_size": 2}
  for ops in ("", 'pad(3, inkey="x")'):
    with pytest.raises(ValueError, match="'x' has no elements"):
      pipeline.train(**given, ops=ops)
  batch = next(pipeline.train(**given, ops='keep("y")').batches(0))
  assert batch["y"].tolist() == [1, 1]


# Without `_close_all` at its end, this process never ends.
OPEN = """
import sys, time
from input_pipeline.batching import pipeline, ragged
packed = ragged.packed
def slow(*given):
  for _ in range(20):
    time.sleep(0.002)
  return packed(*given)
ragged.packed = slow
batches = pipeline.train(
  source=sys.argv[1], ops='pad(9, inkey="x")', split="all", batch_size=2
).batches(0)
next(batches)
"""


@pytest.mark.slow
def test_a_process_ends_with_an_open_stream(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text("".join(f'{{"x": {[1] * (i % 4)}}}\n' for i in range(9)))
  command = [sys.executable, "-c", OPEN, f"jsonl:{path}"]
  assert forkserver.run(command, cwd=ROOT, timeout=60).returncode == 0


def test_a_record_unlike_the_first_is_bad(opened, monkeypatch):
  good = record

  def bad(i):
    found = good(i)
    if i == 4:
      found["boxes"] = found["boxes"][:, :3]
    return found

  monkeypatch.setitem(globals(), "record", bad)
  with pytest.raises(
    ValueError, match=r"record 4: .*boxes.*\[4, 3\].*\[n, 4\]"
  ):
    list(zip(range(2), data(PADS).batches(0), strict=False))


LISTS = [
  {"boxes": [[i, 1.5, 2, 3]] * (i % 3), "label": i, "more": {"a": 1}}
  for i in range(7)
]


def test_lists_of_json_are_ragged_and_objects_are_named(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text("".join(json.dumps(each) + "\n" for each in LISTS))
  given = dict(source=f"jsonl:{path}", split="all", batch_size=7)
  with pytest.raises(ValueError, match="the field 'more' is an object"):
    pipeline.train(**given, ops='pad(2, inkey="boxes")')
  with pytest.raises(ValueError, match="the field 'more' is an object"):
    pipeline.train(**given)
  ops = 'keep("boxes", "label")|pad(2, inkey="boxes")'
  batch = next(pipeline.train(**given, ops=ops).batches(0))
  for i, row in zip(batch["label"], batch["boxes"], strict=True):
    want = LISTS[i]["boxes"]
    np.testing.assert_array_equal(row[: len(want)], want or row[:0])
  path.write_text(path.read_text() + '{"boxes": [[1, 2]], "label": 7}\n')
  with pytest.raises(
    ValueError, match=r"a.jsonl:8: .*no list of numbers \[n, 4"
  ):
    list(pipeline.evaluation(**given | {"batch_size": 8}, ops=ops).batches(0))
