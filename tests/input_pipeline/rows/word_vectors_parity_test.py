"""gensim opens the file of vectors, and finds the same in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import types
from train.evaluators import word_vectors

gensim_models = pytest.importorskip("gensim.models")

WORDS = 40
NAMES = ["<unk>", *(f"wörd{i}" for i in range(1, WORDS))]


@pytest.fixture
def loaded(tmp_path):
  """(the vectors, what gensim read of the evaluator's file)."""
  rng = np.random.default_rng(1)
  table_VD = rng.normal(size=(WORDS, 6)).astype(np.float32)

  def vectors(variables, batch, rng):
    del variables, batch, rng
    known_V = jnp.arange(WORDS) > 0
    return {"vectors": jnp.asarray(table_VD), "known": known_V}

  context = types.EvalContext(
    task=types.Task(None, {}, {"vectors": vectors}),
    batches=None,
    decode=lambda ids: NAMES[ids[0]],
    encode=None,
    num_classes=None,
    workdir=str(tmp_path),
    key="words",
    rng=jax.random.key(0),
    load=None,
    say=print,
  )
  word_vectors.word_vectors(context)(None, 0)
  found = gensim_models.KeyedVectors.load_word2vec_format(
    str(tmp_path / "words.txt")
  )
  return table_VD[1:], found


def test_gensim_reads_the_same_vectors(loaded):
  table_VD, found = loaded
  assert found.index_to_key == NAMES[1:]
  np.testing.assert_array_equal(found.vectors, table_VD)


def test_gensim_finds_the_same_neighbours(loaded):
  table_VD, found = loaded
  unit_VD = word_vectors.normalized(table_VD)
  for i, name in enumerate(NAMES[1:]):
    best, cosine = word_vectors.neighbours(unit_VD, unit_VD[i], 6)
    assert best[0] == i
    told = found.most_similar(name, topn=5)
    assert [NAMES[1 + k] for k in best[1:]] == [word for word, _ in told]
    # Sums of float32 in another order.
    np.testing.assert_allclose(
      cosine[1:], [score for _, score in told], atol=1e-6
    )


def test_gensim_answers_analogies_alike(loaded, tmp_path):
  table_VD, found = loaded
  unit_VD = word_vectors.normalized(table_VD)
  rng = np.random.default_rng(2)
  ids_Q3 = np.array(
    [rng.choice(WORDS - 1, 3, replace=False) for _ in range(200)]
  )
  answers_Q = word_vectors.answers(unit_VD, ids_Q3)
  for ids, answer in zip(ids_Q3, answers_Q, strict=True):
    a, b, c = (NAMES[1 + k] for k in ids)
    ((told, _),) = found.most_similar(positive=[b, c], negative=[a], topn=1)
    assert told == NAMES[1 + answer]
  # Every other question is asked for its answer, the others for another word.
  asked_Q = (answers_Q + np.arange(200) % 2) % (WORDS - 1)
  lines = [
    " ".join(NAMES[1 + k] for k in (*ids, last))
    for ids, last in zip(ids_Q3, asked_Q, strict=True)
  ]
  path = tmp_path / "questions.txt"
  path.write_text(": all\n" + "\n".join(lines) + "\n", encoding="utf-8")
  score, _ = found.evaluate_word_analogies(str(path), case_insensitive=False)
  assert score == 0.5
