import time

import numpy as np
import pytest
from scipy import stats

from input_pipeline import order

# With fixed seeds a p-value never changes; 1e-4 is far from those seen.
_SMALL_P = 1e-4


def span(start: int, count: int) -> np.ndarray:
  return np.arange(start, start + count)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000, 4097])
@pytest.mark.parametrize("epoch", [0, 1, 10**6])
def test_each_epoch_is_a_permutation(n, epoch):
  found = order.indices(3, n, span(epoch * n, n))
  np.testing.assert_array_equal(np.sort(found), np.arange(n))


@pytest.mark.parametrize("n", [7, 64, 1000])
def test_epochs_and_seeds_differ(n):
  first = order.indices(0, n, span(0, n))
  assert (order.indices(0, n, span(n, n)) != first).any()
  assert (order.indices(1, n, span(0, n)) != first).any()
  assert (first != np.arange(n)).any()


@pytest.mark.parametrize("n", [7, 60, 130, 1000])
def test_items_are_uniform_over_positions(n):
  epochs = 5000
  places = np.arange(epochs)[:, None] * n + [0, 1, n // 2, n - 1]
  found = order.indices(1, n, places.reshape(-1)).reshape(epochs, 4)
  for column in found.T:
    counts = np.bincount(column, minlength=n)
    assert stats.chisquare(counts).pvalue > _SMALL_P
  # Neighbours must be as independent as the places themselves.
  gaps = np.bincount((found[:, 1] - found[:, 0]) % n, minlength=n)
  assert gaps[0] == 0
  assert stats.chisquare(gaps[1:]).pvalue > _SMALL_P


@pytest.mark.parametrize(("n", "permutations"), [(2, 2), (3, 6), (4, 24)])
def test_all_permutations_are_equally_likely(n, permutations):
  epochs = 20_000
  found = order.indices(5, n, span(0, n * epochs)).reshape(epochs, n)
  _, counts = np.unique(found, axis=0, return_counts=True)
  assert len(counts) == permutations
  assert stats.chisquare(counts).pvalue > _SMALL_P


@pytest.mark.parametrize("hosts", [1, 2, 64])
def test_hosts_together_read_the_global_order(hosts):
  batch_size, n, step = 128, 1000, 17
  whole = order.indices(2, n, span(step * batch_size, batch_size))
  parts = []
  for host in range(hosts):
    rows = order.host_rows(batch_size, host, hosts)
    parts.append(order.indices(2, n, step * batch_size + rows))
  np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_host_may_hold_several_shares():
  """Sorted, for what is padded comes after what is real."""
  np.testing.assert_array_equal(order.host_rows(8, (3, 0), 4), [0, 1, 6, 7])
  np.testing.assert_array_equal(order.host_rows(8, (0,), 1), np.arange(8))


def test_start_in_the_middle_is_a_slice_of_the_whole():
  whole = order.indices(4, 97, span(0, 970))
  found = order.indices(4, 97, span(333, 200))
  np.testing.assert_array_equal(found, whole[333:533])


@pytest.mark.parametrize("n", [7, 10**6, 2**48])
@pytest.mark.parametrize("start", [3 * 10**12, 2**60])
def test_seeking_far_is_quick(n, start):
  begin = time.perf_counter()
  found = order.indices(0, n, span(start, 1024))
  assert time.perf_counter() - begin < 0.5
  assert found.min() >= 0
  assert found.max() < n


def test_without_shuffle_the_order_is_the_sources():
  np.testing.assert_array_equal(
    order.indices(0, 3, span(2, 5), shuffle=False), [2, 0, 1, 2, 0]
  )


def test_bad_sizes_are_named():
  with pytest.raises(ValueError, match="no examples"):
    order.indices(0, 0, span(0, 1))
  with pytest.raises(ValueError, match="batch_size 10 .* 4 hosts"):
    order.host_rows(10, 0, 4)
