import json

import numpy as np
import pytest
from specs import shapes

from input_pipeline import rows
from input_pipeline.batching import pipeline
from input_pipeline.packing import paired_texts

EOS = 0  # of the tokenizer "byte"
S, T = 24, 16


def written(path, pairs, **fields):
  records = [{"source": s, "target": t, **fields} for s, t in pairs]
  path.write_text("".join(json.dumps(r) + "\n" for r in records))
  return f"jsonl:{path}"


def random_pairs(count, longest=(22, 14), seed=0):
  rng = np.random.default_rng(seed)
  return [
    tuple(
      "".join(rng.choice(list("abcdefg "), size=rng.integers(0, n + 1)))
      for n in longest
    )
    for _ in range(count)
  ]


def settings(uri, **kind):
  return dict(
    source=uri,
    split="all",
    tokenizer="byte",
    seq_len=S,
    rows=dict(name="translation", target_len=T, **kind),
  )


def texts_of(batch):
  """The pairs of packed rows by their segments, both sides checked."""
  found = []
  for row in range(len(batch["inputs"])):
    sides = [
      ("inputs", "input_segments", "input_positions"),
      ("targets", "segments", "positions"),
    ]
    numbers = [set(batch[segments][row]) - {0} for _, segments, _ in sides]
    assert numbers[0] == numbers[1]
    for number in sorted(numbers[0]):
      pair = []
      for tokens, segments, positions in sides:
        at = np.flatnonzero(batch[segments][row] == number)
        np.testing.assert_array_equal(at, np.arange(at[0], at[-1] + 1))
        np.testing.assert_array_equal(
          batch[positions][row][at], np.arange(len(at))
        )
        ids = batch[tokens][row][at]
        assert ids[-1] == EOS
        pair.append(bytes(ids[:-1].tolist()).decode())
      found.append(tuple(pair))
  return found


def test_packed_rows_hold_every_pair_once(tmp_path):
  pairs = random_pairs(300)
  data = pipeline.train(
    **settings(written(tmp_path / "a.jsonl", pairs)), batch_size=1
  )
  batches = data.batches(0)
  found = [
    pair for _ in range(data.num_examples) for pair in texts_of(next(batches))
  ]
  assert sorted(found) == sorted(pairs)
  room = max(
    sum(len(s) + 1 for s, _ in pairs) / S, sum(len(t) + 1 for _, t in pairs) / T
  )
  # No packing has fewer rows than the room asks; this one has few more.
  assert room <= data.num_examples <= 1.1 * room


def test_mask_and_bytes_are_those_of_the_targets(tmp_path):
  data = pipeline.train(
    **settings(written(tmp_path / "a.jsonl", random_pairs(30))), batch_size=4
  )
  batch = next(data.batches(0))
  np.testing.assert_array_equal(batch["mask"], batch["segments"] > 0)
  # An end of text is a token of one byte to "byte".
  np.testing.assert_array_equal(batch["bytes"], batch["mask"].sum(1))
  leaves, classes = rows.planned(
    dict(name="translation", target_len=T), seq_len=S
  )
  told = {k: (shape, np.dtype(d)) for k, (shape, d) in leaves.items()}
  assert {k: v for k, v in shapes(data.spec).items() if k != "index"} == told
  assert classes is None


def test_what_is_too_long_is_cut_and_a_cut_target_does_not_end(tmp_path):
  source, target = "s" * 40, "t" * 40
  uri = written(tmp_path / "a.jsonl", [(source, target)])
  packed = pipeline.train(**settings(uri), batch_size=1)
  alone = pipeline.evaluation(**settings(uri), batch_size=1)
  for data in (packed, alone):
    batch = next(data.batches(0))
    assert batch["inputs"][0].tolist() == [*b"s" * (S - 1), EOS]
    assert batch["targets"][0].tolist() == [*b"t" * T]


def test_an_evaluation_has_one_pair_a_row_and_its_texts(tmp_path):
  pairs = [("abc", "x"), ("", "yz"), ("d", "")]
  uri = written(tmp_path / "a.jsonl", pairs)
  data = pipeline.evaluation(**settings(uri, prefix="> "), batch_size=2)
  batches = list(data.batches(0))
  assert [b["index"].tolist() for b in batches] == [[0, 1], [2, -1]]
  assert batches[0]["inputs"][0, :6].tolist() == [*b"> abc", EOS]
  assert batches[0]["input_segments"][0].tolist() == [1] * 6 + [0] * (S - 6)
  assert batches[0]["targets"][1, :3].tolist() == [*b"yz", EOS]
  assert batches[1]["mask"].sum(1).tolist() == [1, 0]
  assert data.texts(np.array([1]))["target"].tolist() == ["yz"]


def test_a_prefix_and_no_packing_in_training(tmp_path):
  uri = written(tmp_path / "a.jsonl", [("abc", "x")] * 4)
  packed = pipeline.train(**settings(uri, prefix="> "), batch_size=1)
  alone = pipeline.train(
    **settings(uri, prefix="> ", packing=False), batch_size=1
  )
  assert texts_of(next(packed.batches(0))) == [("> abc", "x")] * 4
  assert texts_of(next(alone.batches(0))) == [("> abc", "x")]
  assert alone.num_examples == 4


def test_a_tokenizer_learns_from_both_texts(tmp_path):
  uri = written(tmp_path / "a.jsonl", [("abc", "xyz")] * 20, text="123")
  data = pipeline.train(**settings(uri) | {"tokenizer": "char"}, batch_size=2)
  ids = [data.tokenizer.encode(c)[0] for c in "abcxyz"]
  assert len(set(ids)) == 6
  with pytest.raises(ValueError):
    data.tokenizer.encode("1")
  # It has no end of its own: one is added.
  assert data.tokenizer.decode([data.tokenizer.vocab_size - 1]) == "</s>"
  row = next(data.batches(0))["inputs"][0]
  assert row[3] == data.tokenizer.vocab_size - 1


def test_bad_records_take_both_texts_with_them(tmp_path):
  pairs = random_pairs(40, seed=1)
  uri = written(tmp_path / "a.jsonl", pairs)
  path = tmp_path / "a.jsonl"
  lines = path.read_text().splitlines()
  lines[3] = '{"source": "a"}'
  lines[7] = '{"source": "a\\u0000b", "target": "c"}'
  lines[9] = '{"source": "a", "target": 5}'
  path.write_text("\n".join(lines) + "\n")
  data = pipeline.train(
    **settings(uri), batch_size=1, on_bad_record="skip", max_bad_share=0.2
  )
  batches = data.batches(0)
  found = [
    pair for _ in range(data.num_examples) for pair in texts_of(next(batches))
  ]
  left = [pair for i, pair in enumerate(pairs) if i not in (3, 7, 9)]
  assert sorted(found) == sorted(left)
  assert data.skipped().count == 3


@pytest.mark.parametrize(
  "kind, record, told",
  [
    ({"source_key": "de"}, {}, "no field 'de'; valid: source, target"),
    ({"target_len": -1}, {}, "rows.target_len=-1"),
    ({"sorce_key": "de"}, {}, "did you mean"),
    ({}, {"target": 5}, r"a.jsonl:1: the field 'target' is not text"),
    ({}, {"source": "a\0b"}, r"a.jsonl:1: a text of a pair contains .* NUL"),
  ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, kind, record, told):
  path = tmp_path / "a.jsonl"
  path.write_text(json.dumps({"source": "a", "target": "b"} | record) + "\n")
  asked = settings(f"jsonl:{path}")
  asked["rows"] |= kind
  with pytest.raises(ValueError, match=told) as error:
    pipeline.train(**asked, batch_size=1)
  assert "\n" not in str(error.value)


def test_best_fit_in_two_dimensions():
  # By hand: the fullest row that holds both sides, the longest pair first.
  sizes = np.array([[6, 2], [4, 8], [5, 5], [5, 5], [4, 1], [1, 9]])
  found = paired_texts.best_fit(sizes, (10, 10))
  for row in range(found.max() + 1):
    assert (sizes[found == row].sum(0) <= 10).all()
  # In order: (1, 9), (4, 8), (6, 2) beside the latter, the two (5, 5) in one,
  # and (4, 1) beside the first, the only one with room.
  assert found.tolist() == [1, 1, 2, 2, 0, 0]
