"""Word vectors: their neighbours and analogies, and a text file of them."""

import os
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from common import bounded_file
from common.files import write_atomically
from train import types

_MOST_BYTES = 2**26
# The number of products of vectors in memory at a time.
_AT_ONCE = 2**24


def word_vectors(
  context: types.EvalContext,
  *,
  words: Sequence[str] = (),
  nearest: int = 8,
  analogies: Sequence[str] = (),
  questions: str = "",
) -> types.Evaluator:
  """Writes WORKDIR/<key>.txt in the text format of word2vec.

  The first line is "words dimensions"; each other line has a word and its
  numbers, with enough digits to restore the float32. The nearest neighbours of
  `words` by cosine are printed. An analogy "a b c d", a is to b as c to d, is
  correct if d is nearest to b - a + c among the unit vectors of all words but
  a, b and c (3CosAdd; Mikolov et al., NAACL 2013). The metric "analogies"
  counts those whose words are all known; analogy_accuracy is the share of
  correct ones among them.

  Args:
    context: of the run; its task predicts "vectors".
    words: words whose neighbours are printed.
    nearest: number of neighbours.
    analogies: analogies of four words each.
    questions: path of a file with more analogies, one per line; lines that
      begin with ":" are titles.

  Raises:
    ValueError: the task does not predict vectors, an analogy does not have four
      words, or the file cannot be read.
  """
  if "vectors" not in context.task.predict or context.decode is None:
    raise ValueError("word_vectors needs a task that predicts vectors of words")
  asked = list(_questions(analogies, "analogies"))
  if questions:
    text = bounded_file.read(os.path.expanduser(questions), _MOST_BYTES)
    asked += _questions(text.decode("utf-8").splitlines(), questions)
  predict = jax.jit(context.task.predict["vectors"])

  def evaluate(variables, step):
    del step
    found = context.fetch(predict(variables, {}, context.rng))
    names = [context.decode([i]) for i in range(len(found["vectors"]))]
    # The format holds words without white space only.
    kept = [
      i for i in np.flatnonzero(found["known"]) if len(names[i].split()) == 1
    ]
    names, table_VD = [names[i] for i in kept], found["vectors"][kept]
    if context.workdir and jax.process_index() == 0:
      path = os.path.join(context.workdir, f"{context.key}.txt")
      write_atomically(path, _written(names, table_VD))
    unit_VD = normalized(table_VD)
    place = {name: i for i, name in enumerate(names)}
    for word in words:
      if word not in place:
        context.say(f"{word}: not in the vocabulary")
        continue
      best, cosine = neighbours(unit_VD, unit_VD[place[word]], nearest + 1)
      listed = zip(best, cosine, strict=True)
      near = [f"{names[i]} {c:.2f}" for i, c in listed if names[i] != word]
      context.say(f"{word}: {', '.join(near[:nearest])}")
    known = [q for q in asked if all(w in place for w in q)]
    if not known:
      return {"words": float(len(names))}
    ids_Q4 = np.array([[place[w] for w in q] for q in known])
    right_Q = answers(unit_VD, ids_Q4[:, :3]) == ids_Q4[:, 3]
    return {
      "words": float(len(names)),
      "analogies": float(len(known)),
      "analogy_accuracy": float(right_Q.mean()),
    }

  return evaluate


def normalized(x_VD: np.ndarray) -> np.ndarray:
  """Returns each vector divided by its length; zeros remain zeros."""
  x_VD = np.asarray(x_VD, np.float32)
  length_V1 = np.linalg.norm(x_VD, axis=1, keepdims=True)
  return x_VD / np.where(length_V1 > 0, length_V1, 1)


def neighbours(
  unit_VD: np.ndarray, x_D: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (ids, products) of the `count` largest products with x."""
  product_V = unit_VD @ x_D
  best = np.argsort(-product_V, kind="stable")[:count]
  return best, product_V[best]


def answers(unit_VD: np.ndarray, ids_Q3: np.ndarray) -> np.ndarray:
  """3CosAdd's answer to each analogy (a, b, c), int [Q]."""
  together = max(_AT_ONCE // len(unit_VD), 1)
  found = [np.zeros(0, np.int64)]
  for start in range(0, len(ids_Q3), together):
    ids_B3 = ids_Q3[start : start + together]
    a_BD, b_BD, c_BD = (unit_VD[ids] for ids in ids_B3.T)
    cosine_BV = (b_BD - a_BD + c_BD) @ unit_VD.T
    np.put_along_axis(cosine_BV, ids_B3, -np.inf, axis=1)
    found.append(cosine_BV.argmax(1))
  return np.concatenate(found)


def _questions(lines: Iterable[str], where: str) -> Iterator[list[str]]:
  """The four words of each line that is neither empty nor a title."""
  for number, line in enumerate(lines, 1):
    words = line.split()
    if not words or words[0].startswith(":"):
      continue
    if len(words) != 4:
      raise ValueError(
        f"{where}: line {number} {line!r} does not have four words"
      )
    yield words


def _written(names: list[str], table_VD: np.ndarray) -> Iterator[bytes]:
  """The lines of the text format."""
  yield "{} {}\n".format(*table_VD.shape).encode()
  for name, x_D in zip(names, np.asarray(table_VD, np.float32), strict=True):
    # str of NumPy's float32 has the fewest digits that restore it.
    yield f"{name} {' '.join(map(str, x_D))}\n".encode()
