"""Which batch an update takes, against a list made by hand."""

import itertools

import numpy as np
import pytest

from train.checkpointing import bad_batches


def skip(a, b, to=0):
  return bad_batches.Skip(b, to, (a, b), "why")


@pytest.mark.parametrize("seed", range(5))
def test_batches_are_those_not_passed_over(seed):
  rng = np.random.default_rng(seed)
  rows = [
    skip(int(a), int(a + n))
    for a, n in zip(rng.integers(0, 60, 6), rng.integers(0, 9, 6), strict=True)
  ]
  gone = {k for row in rows for k in range(*row.batches)}
  left = [k for k in range(200) if k not in gone]
  assert [bad_batches.batch_of(rows, step) for step in range(100)] == left[:100]
  for step in (0, 7, 30, 99):
    taken = itertools.chain.from_iterable(
      itertools.count(a) if b is None else range(a, b)
      for a, b in bad_batches.spans(rows, step)
    )
    assert list(itertools.islice(taken, 40)) == left[step : step + 40]


def test_without_skips_batches_are_steps():
  assert bad_batches.batch_of([], 7) == 7
  assert list(bad_batches.spans([], 7)) == [(7, None)]


def test_the_ledger_keeps_rows_and_drops_what_a_kill_cut(tmp_path):
  path = tmp_path / "skipped.jsonl"
  assert bad_batches.read(path) == [] and bad_batches.read(None) == []
  bad_batches.append(path, skip(3, 5, to=2), 8)
  whole = path.read_text()
  for cut in range(len(whole) - 1):
    path.write_text(whole[:cut])
    assert bad_batches.read(path) == []
    bad_batches.append(path, skip(7, 9), 8)
    assert bad_batches.read(path) == [skip(7, 9)]
  assert '"examples": [56, 72]' in path.read_text()


def test_checkpoints_of_what_was_gone_back_from_do_not_stand():
  rows = [skip(10, 12, to=8), skip(20, 22, to=16)]
  for step, rollbacks, stands in (
    (8, 0, True),
    (9, 0, False),  # saved before the run went back to 8
    (9, 1, True),
    (17, 1, False),
    (17, 2, True),
    (30, 2, True),
  ):
    assert bad_batches.stands(rows, step, {"rollbacks": rollbacks}) == stands
