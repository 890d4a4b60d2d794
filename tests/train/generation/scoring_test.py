"""Log-probabilities: by programs of a few sizes, and by one pass."""

import generation_test as common
import jax
import numpy as np
import pytest
from tiers import slow_but

from models.language.rnn import rnn
from train.generation import scoring, streaming

pytestmark = pytest.mark.usefixtures("compiled_soon")

MODELS = {
  "tokens": common.tiny(layers=1),
  "state": rnn(vocab_size=256, layers=1, dim=8, hidden=16),
}


@pytest.mark.parametrize("name", slow_but(["tokens"], MODELS))
def test_scores_are_those_of_one_pass(name, monkeypatch):
  monkeypatch.setattr(scoring, "_SLAB", 8)
  found = common.found_of(MODELS[name], scale=5.0)
  scorer = scoring.Scorer(found, room=20)
  assert scorer.compile() == 2  # for 8 and for 20 tokens
  compiled = []
  monkeypatch.setattr(
    "jax._src.compiler.backend_compile_and_load",
    lambda *args, **named: compiled.append(args),
  )
  # The last pass of the long text begins with tokens that were read before.
  texts = [[65], list(range(40, 47)), list(range(60, 79))]
  scores = scorer(texts, 3)
  assert not compiled
  monkeypatch.undo()
  model, variables, _ = streaming.inference(found)
  padded_BT = np.array([[*ids, *[0] * (19 - len(ids))] for ids in texts])
  given = (variables.params, variables.model_state, padded_BT)
  logs_BTV = jax.jit(lambda *x: jax.nn.log_softmax(model.apply(*x)[0]))(*given)
  for ids, each, logs_TV in zip(
    texts, scores, np.asarray(logs_BTV), strict=True
  ):
    T = len(ids)
    assert np.isnan(each.own_T[0]) and each.ids_TK.shape == (T, 3)
    want_T = logs_TV[np.arange(T - 1), ids[1:]]
    np.testing.assert_allclose(each.own_T[1:], want_T, atol=1e-4)
    want_TK = -np.sort(-logs_TV[: T - 1])[:, :3]
    np.testing.assert_allclose(each.top_TK[1:], want_TK, atol=1e-4)
  with pytest.raises(ValueError, match="a text has 21 tokens, at most 20"):
    scorer([[1] * 21], 1)
