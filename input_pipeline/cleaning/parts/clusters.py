"""Connected components of a graph given by its edges."""

import numpy as np


def connected_components(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns the smallest node connected to each node, int64 [nodes].

  Nodes are numbered from 0 to the largest in a or b. Union-find over all edges
  at once: a root is attached to the smallest root it shares an edge with, and
  paths are halved until each is one step long, in O(log n) rounds as in
  Shiloach and Vishkin (1982).
  """
  nodes = int(max(a.max(initial=-1), b.max(initial=-1))) + 1
  root = np.arange(nodes)
  while True:
    low = np.minimum(root[a], root[b])
    high = np.maximum(root[a], root[b])
    open_edges = low != high
    if not open_edges.any():
      return root
    a, b = a[open_edges], b[open_edges]
    np.minimum.at(root, high[open_edges], low[open_edges])
    while True:
      above = root[root]
      if np.array_equal(above, root):
        break
      root = above


def forest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """uint64 (nodes, the smallest node joined with each), of edges of uint64."""
  nodes, numbers = np.unique(np.concatenate([a, b]), return_inverse=True)
  root = connected_components(numbers[: len(a)], numbers[len(a) :])
  return nodes, nodes[root]
