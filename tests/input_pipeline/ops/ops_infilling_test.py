"""GLM's rows: every token once, in its place, seen by whom it should be."""

import numpy as np
import pytest

from input_pipeline import ops
from input_pipeline.batching import pipeline
from input_pipeline.tokenizers.parts import special_tokens

T = 24
SOURCE = dict(source="fake:text", tokenizer="char", seq_len=T)


def rows(string, batch_size=16, batches=1, **how):
  """(rows as dicts, the windows they were made of, the tokenizer)."""
  data = pipeline.train(**SOURCE, ops=string, batch_size=batch_size, **how)
  plain = pipeline.train(**SOURCE, batch_size=batch_size, **how)
  made, windows = [], []
  for stream, out in ((data, made), (plain, windows)):
    iterator = stream.batches(0)
    for _ in range(batches):
      batch = next(iterator)
      out += [{k: v[i] for k, v in batch.items()} for i in range(batch_size)]
  return made, windows, data.tokenizer


def specials(tokenizer):
  families = special_tokens.MASK, special_tokens.START, special_tokens.END
  return [special_tokens.find(tokenizer, f) for f in families]


def test_blanks_and_text_are_the_window_again():
  made, windows, tokenizer = rows(
    "blank_infilling(density=0.3, mean_span=2.0, long=0.0)"
  )
  mask_id, start, end = specials(tokenizer)
  shuffled = 0
  for row, window in zip(made, windows, strict=True):
    a = int(row["prefix"])
    text = row["inputs"][:a].tolist()
    spans = {}  # by the place of their mask
    for i in range(a, len(row["inputs"])):
      if row["mask"][i] == 0:
        continue
      place, within = row["positions"][i], row["block_positions"][i]
      blank = spans.setdefault(int(place), [])
      # Within a blank from 1, first a start, then what was predicted before.
      assert within == len(blank) + 1
      read = start if within == 1 else blank[-1]
      assert row["inputs"][i] == read
      blank.append(int(row["targets"][i]))
    assert all(blank[-1] == end for blank in spans.values())
    assert {i for i, t in enumerate(text) if t == mask_id} == set(spans)
    shuffled += list(spans) != sorted(spans)
    whole = []
    for i, token in enumerate(text):
      whole += spans[i][:-1] if i in spans else [token]
    assert whole == window["inputs"].tolist()
    # round(24 x 0.3) tokens are blank, in round(7 / 2) spans.
    assert len(spans) == 4
    assert sum(len(blank) - 1 for blank in spans.values()) == 7
    assert row["mask"].sum() == 7 + 4
    assert a == T - 7 + 4
    np.testing.assert_array_equal(row["positions"][:a], np.arange(a))
    assert not row["block_positions"][:a].any()
    assert not row["mask"][:a].any()
  assert shuffled > 8


def test_one_long_blank_goes_on_beyond_the_window():
  made, windows, tokenizer = rows("blank_infilling(long=1.0)", batches=4)
  mask_id, start, _ = specials(tokenizer)
  prefixes = set()
  for row, window in zip(made, windows, strict=True):
    p = int(row["prefix"]) - 1
    prefixes.add(p)
    text = window["inputs"].tolist()
    size = T + 2
    assert row["inputs"][:size].tolist() == [
      *text[:p],
      mask_id,
      start,
      *text[p:],
    ]
    predicted = row["mask"] > 0
    assert row["targets"][predicted].tolist() == [
      *text[p:],
      int(window["targets"][-1]),
    ]
    assert np.flatnonzero(predicted)[0] == p + 1
    assert (row["positions"][predicted] == p).all()
    np.testing.assert_array_equal(
      row["block_positions"][predicted], np.arange(1, T - p + 2)
    )
  assert min(prefixes) == 1
  assert max(prefixes) == T // 2


def test_a_trailing_blank_predicts_the_windows_own_targets():
  made, windows, tokenizer = rows("trailing_blank")
  mask_id, start, _ = specials(tokenizer)
  for row, window in zip(made, windows, strict=True):
    text = window["inputs"].tolist()
    assert row["inputs"].tolist() == [text[0], mask_id, start, *text[1:]]
    np.testing.assert_array_equal(row["targets"][2:], window["targets"])
    np.testing.assert_array_equal(row["mask"], [0, 0, *window["mask"]])
    assert row["bytes"] == window["bytes"]
    assert row["prefix"] == 2


def test_an_evaluation_counts_each_character_once():
  plain = pipeline.evaluation(**SOURCE, batch_size=8)
  blank = pipeline.evaluation(**SOURCE, batch_size=8, ops="trailing_blank")
  for name in ("mask", "bytes"):
    want, got = (
      sum(batch[name].sum() for batch in data.batches(0))
      for data in (plain, blank)
    )
    assert got == want > 0


def test_rows_are_a_function_of_the_seed():
  string = "blank_infilling"
  one, again, other = (
    rows(string, seed=seed, shuffle=False)[0] for seed in (0, 0, 1)
  )
  for a, b in zip(one, again, strict=True):
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])
  assert any(
    (a["inputs"] != b["inputs"]).any() for a, b in zip(one, other, strict=True)
  )


def test_wrong_settings_are_named():
  for string, message in (
    ("blank_infilling(density=0.0)", "density=0.0"),
    ("blank_infilling(mean_span=0.5)", "mean_span=0.5"),
    ("blank_infilling(long=1.5)", "long=1.5"),
    ("trailing_blank|blank_infilling", "blank_infilling"),
  ):
    with pytest.raises(ValueError, match=message):
      rows(string)
  with pytest.raises(ValueError, match="packed"):
    pipeline.train(**SOURCE, packing=True, ops="trailing_blank", batch_size=2)
  assert ops.parse("trailing_blank") == [("trailing_blank", (), {})]
