"""A drafted text has the distribution of the large model's own."""

import itertools

import generation_test as common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_but

from common.errors import UserError
from train.generation import sampling, speculative, streaming

stats = pytest.importorskip("scipy.stats")


def writer(found, chunk, draft):
  """streaming.writer of two runs."""
  own, drafter = streaming.inference(found), streaming.inference(draft)
  return streaming.writer(own, chunk, drafter)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_what_is_accepted_has_the_large_models_distribution(spread):
  V, G, count = 4, 2, 40000
  rng = np.random.default_rng(1)
  p_TV = softmax(spread * rng.normal(size=(G + 1, V))).astype(np.float32)
  q_GV = softmax(spread * rng.normal(size=(G, V))).astype(np.float32)
  q_GV[0, 1] = 0  # what the draft never says
  q_GV[0] /= q_GV[0].sum()
  p_TV[1, 2] = 0  # what the large model never says
  p_TV[1] /= p_TV[1].sum()

  p, q = jnp.asarray(p_TV), jnp.asarray(q_GV)

  def one(key):
    drafting, accepting = jax.random.split(key)
    drafted_G = jax.random.categorical(drafting, jnp.log(q))
    kept, after = speculative.accept(p, q, drafted_G, accepting)
    places = jnp.arange(G + 1)
    return kept, jnp.where(places < kept, jnp.pad(drafted_G, (0, 1)), after)

  keys = jax.random.split(jax.random.key(0), count)
  kept, tokens = map(np.asarray, jax.jit(jax.vmap(one))(keys))
  # The share of drafts that are kept is sum min(p, q) (the paper's theorem).
  shares = np.minimum(p_TV[:G], q_GV).sum(-1)
  for place in range(G):
    asked = kept >= place
    found = (kept[asked] > place).mean()
    error = 4 * (shares[place] * (1 - shares[place]) / asked.sum()) ** 0.5
    assert abs(found - shares[place]) < error
  for place in range(G + 1):
    counts = np.bincount(tokens[kept >= place, place], minlength=V)
    wanted = p_TV[place].astype(np.float64) * counts.sum()
    assert not counts[wanted == 0].any()
    real = wanted > 0
    scaled = wanted[real] * counts.sum() / wanted[real].sum()
    assert stats.chisquare(counts[real], scaled).pvalue > 1e-3


def models(**changes):
  """(a large model, a smaller one that often agrees with it)."""
  large = common.found_of(common.tiny(**changes), seed=0)
  small = common.found_of(common.tiny(layers=1, **changes), seed=0)
  # The smaller one has the larger one's embeddings, and its first layer.
  params = large.variables.params
  cut = jax.tree.map(lambda leaf: leaf[:1], params["blocks"])
  small.variables = small.variables._replace(params=params | {"blocks": cut})
  return large, small


@pytest.mark.slow
@pytest.mark.parametrize("ahead", slow_but([4], [1, 4]))
def test_a_greedy_text_is_the_large_models_token_for_token(ahead):
  large, small = models()
  options = [
    streaming.Options(max_tokens=m, temperature=0.0, repetition_penalty=r)
    for m, r in ((30, 1.0), (17, 1.2), (25, 1.0))
  ]
  wanted = common.gathered(streaming.stream(large, common.PROMPTS, options), 3)
  for draft in (small, large):
    write = writer(large, ahead + 1, draft)
    assert common.gathered(write(common.PROMPTS, options), 3) == wanted


def test_a_draft_that_is_the_model_itself_is_kept_whole():
  large, _ = models()
  options = streaming.Options(max_tokens=20, temperature=1.0)
  pieces = writer(large, 5, large)([[65]], [options])
  sizes = [len(piece.tokens) for piece in pieces]
  assert sum(sizes) == 20 and sizes[:-1] == [5] * (len(sizes) - 1)


@pytest.fixture(scope="module")
def five():
  """(a model of a vocabulary of five, what writes with another's draft)."""
  model = common.decoder(vocab_size=5, layers=1, dim=8, heads=2, max_len=16)
  words = common.BYTES._replace(
    vocab_size=5, eos=None, decode=lambda ids: "".join(map(str, ids))
  )
  large = common.found_of(model, words, seed=1, scale=6.0)
  small = common.found_of(model, words, seed=2, scale=6.0)
  return large, writer(large, 3, small)


@pytest.mark.slow
@pytest.mark.parametrize(
  "way",
  [
    {"temperature": 1.0},
    {"temperature": 0.6},
    {"temperature": 1.5, "top_k": 3},
    {"temperature": 2.5, "top_p": 0.9},
    {"temperature": 1.2, "min_p": 0.2, "repetition_penalty": 1.5},
  ],
  ids=str,
)
def test_sampled_texts_have_the_exact_distribution(five, way):
  """Of all pairs of tokens after a prompt, on a vocabulary of five."""
  V, rows, calls, prompt = 5, 512, 8, [3, 1]
  large, write = five
  wanted = exact_pairs(large, prompt, way, V)
  counts = np.zeros((V, V))
  for call in range(calls):
    options = [
      streaming.Options(max_tokens=2, seed=call * rows + row, **way)
      for row in range(rows)
    ]
    _, ids, _ = common.gathered(write([prompt] * rows, options), rows)
    np.add.at(counts, tuple(np.transpose(ids)), 1)
  assert not counts[wanted == 0].any()
  real = wanted * counts.sum() > 5
  pooled = [counts[real], [counts[~real].sum()]]
  expected = [wanted[real], [wanted[~real].sum()]]
  counts, expected = np.concatenate(pooled), np.concatenate(expected)
  counts, expected = counts[expected > 0], expected[expected > 0]
  assert len(expected) > 3  # else there would be nothing to compare
  expected = expected / expected.sum() * counts.sum()
  # The seeds are fixed: this passes always or never. 1e-3 would be bad luck.
  assert stats.chisquare(counts, expected).pvalue > 1e-3


def exact_pairs(found, prompt, way, V):
  """[V, V]: the large model's own probability of each pair."""
  way = dict(way)
  penalty = way.pop("repetition_penalty", 1.0)
  apply = jax.jit(found.parts.model.apply)

  def after(ids):
    logits_1TV = apply(found.variables.params, {}, jnp.asarray([ids]))[0]
    seen_1V = jnp.zeros((1, V), bool).at[0, jnp.asarray(ids)].set(True)
    logits_1V = sampling.penalize(logits_1TV[:, -1], seen_1V, penalty)
    kept_V = sampling.filter_logits(
      logits_1V / way["temperature"],
      way.get("top_k"),
      way.get("top_p"),
      way.get("min_p"),
    )[0]
    return softmax(np.asarray(kept_V, np.float64))

  wanted = np.zeros((V, V))
  first_V = after(prompt)
  for a, b in itertools.product(range(V), range(V)):
    wanted[a, b] = first_V[a] * after([*prompt, a])[b]
  return wanted


@pytest.mark.slow
def test_a_draft_that_does_not_fit_is_told():
  large, small = models()
  endless = common.BYTES._replace(eos=None)
  large.parts.data.tokenizer = small.parts.data.tokenizer = endless
  write = writer(large, 4, small)
  options = streaming.Options(max_tokens=77, temperature=0.0)
  assert sum(len(p.tokens) for p in write([[65]], [options])) == 77
  with pytest.raises(ValueError, match="need 79 tokens: with .* may have 78"):
    write([[65]], [options._replace(max_tokens=78)])
  with pytest.raises(UserError, match="with a recurrent state"):
    writer(large, 4, common.found_of(common.Script([65], 1)))
  other = common.BYTES._replace(vocab_size=300)
  small.parts.data.tokenizer = other
  with pytest.raises(UserError, match="draft model's tokenizer"):
    writer(large, 4, small)
