"""word2vec, GloVe and what is read off their vectors, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from models.language.word_vectors import word_vectors as make_model
from train import types
from train.evaluators.word_vectors import word_vectors as make_evaluator
from train.objectives import skip_grams
from train.tasks.glove import glove
from train.tasks.word2vec import word2vec

V, D = 12, 5
COUNTS = np.array([0, 400, 200, 100, 60, 40, 30, 20, 10, 8, 5, 2])


def variables_of(task, bias=False, seed=0):
  """Variables of the task, with parameters far from where they begin."""
  found = task.init(jax.random.key(0), {})
  rng = np.random.default_rng(seed)
  params = {
    "input": rng.normal(0, 0.7, (V, D)),
    "output": rng.normal(0, 0.7, (V, D)),
  }
  if bias:
    params |= {f"{name}_bias": rng.normal(0, 0.7, V) for name in list(params)}
  assert set(params) == set(found.params)
  params = {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}
  return found._replace(params=params)


def value_and_gradient(task, variables, batch, rng):
  def mean(params):
    total, _ = task.losses["loss"](
      variables._replace(params=params), batch, types.Context(rng, 0, True)
    )
    return total.value()

  return jax.value_and_grad(mean)(variables.params)


def numeric(loss, params):
  """The gradient of a NumPy function of float64, by central differences."""
  found = {}
  for name, value in params.items():
    found[name] = np.zeros_like(value)
    for place in np.ndindex(*value.shape):
      sides = []
      for sign in (1, -1):
        moved = {k: v.copy() for k, v in params.items()}
        moved[name][place] += sign * 1e-5
        sides.append(loss(moved))
      found[name][place] = (sides[0] - sides[1]) / 2e-5
  return found


def log_sigmoid(x):
  return -np.log1p(np.exp(-x))


def compare(task, variables, batch, rng, by_hand):
  """The task's loss and gradient are those of a NumPy function."""
  params = {k: np.asarray(v, float) for k, v in variables.params.items()}
  value, gradient = value_and_gradient(task, variables, batch, rng)
  np.testing.assert_allclose(value, by_hand(params), rtol=1e-5)
  expected = numeric(by_hand, params)
  for name, leaf in gradient.items():
    np.testing.assert_allclose(leaf, expected[name], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
def test_word2vec_is_the_formula_of_its_draws(architecture, monkeypatch):
  tokens = np.array([[1, 2, 3, 1, 4, 5], [6, 1, 7, 2, 8, 9]], np.int32)
  segments = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 2, 2, 0]], np.int32)
  batch = {
    "inputs": jnp.asarray(tokens),
    "segments": jnp.asarray(segments),
    "mask": jnp.asarray(segments > 0, jnp.float32),
  }
  # Every word stays and reaches two words far; noise as drawn by NumPy.
  noise = np.array([[3, 1, 5], [2, 2, 11]])
  monkeypatch.setattr(
    skip_grams.jax.random,
    "randint",
    lambda key, shape, low, high: jnp.full(shape, 2),
  )
  monkeypatch.setattr(skip_grams, "noise", lambda *a: jnp.asarray(noise))
  task = word2vec(
    make_model(vocab_size=V, dim=D),
    counts=COUNTS,
    architecture=architecture,
    window=2,
    negatives=5,
    noise=3,
    subsample=0,
  )

  def by_hand(params):
    x, y = params["input"], params["output"]
    losses = []
    for row, documents, drawn in zip(tokens, segments, noise, strict=True):
      for t, word in enumerate(row):
        contexts = [
          row[s]
          for s in range(max(t - 2, 0), min(t + 3, 6))
          if s != t and documents[s] == documents[t] > 0
        ]
        if architecture == "skip_gram":
          pairs = [(x[word], y[c]) for c in contexts]
        else:
          mean = np.mean([x[c] for c in contexts], 0) if contexts else None
          pairs = [(mean, y[word])] if contexts else []
        for h, right in pairs:
          against = sum(log_sigmoid(-h @ y[n]) for n in drawn) * 5 / 3
          losses.append(-log_sigmoid(h @ right) - against)
    return np.mean(losses)

  compare(task, variables_of(task), batch, jax.random.key(1), by_hand)


def test_glove_is_the_paper_s_weighted_least_squares():
  batch = {
    "word": jnp.asarray([[1, 2, 3, 0]]),
    "context": jnp.asarray([[2, 2, 11, 0]]),
    "count": jnp.asarray([[0.5, 30.0, 10.0, 0.0]]),
    "mask": jnp.asarray([[1.0, 1.0, 1.0, 0.0]]),
  }
  model = make_model(vocab_size=V, dim=D, bias=True)
  task = glove(model, counts=COUNTS, x_max=10.0, alpha=0.75)

  def by_hand(params):
    losses = []
    for i, j, x in ((1, 2, 0.5), (2, 2, 30.0), (3, 11, 10.0)):
      weight = (x / 10) ** 0.75 if x < 10 else 1.0
      score = params["input"][i] @ params["output"][j]
      score += params["input_bias"][i] + params["output_bias"][j]
      losses.append(weight * (score - np.log(x)) ** 2)
    return np.mean(losses)

  variables = variables_of(task, bias=True)
  compare(task, variables, batch, jax.random.key(0), by_hand)
  found = task.predict["vectors"](variables, {}, jax.random.key(0))
  params = variables.params
  np.testing.assert_array_equal(
    found["vectors"], params["input"] + params["output"]
  )
  assert found["known"].tolist() == (COUNTS > 0).tolist()


def test_words_stay_and_are_noise_as_often_as_the_paper_says():
  """By chi-square, of 400,000 draws."""
  stay_V, noise_V = skip_grams.chances(COUNTS, 0.75, 0.02)
  share_V = COUNTS / COUNTS.sum()
  expected_V = np.minimum(np.sqrt(0.02 / np.maximum(share_V, 1e-9)), 1)
  np.testing.assert_allclose(stay_V[1:], expected_V[1:], rtol=1e-6)
  assert stay_V[0] == 0

  n = 400_000
  noise = skip_grams.noise(jnp.asarray(noise_V), 400, 1000, jax.random.key(3))
  seen_V = np.bincount(np.asarray(noise).reshape(-1), minlength=V)
  assert seen_V[0] == 0
  weight_V = COUNTS[1:] ** 0.75
  expected = n * weight_V / weight_V.sum()
  assert scipy.stats.chisquare(seen_V[1:], expected).pvalue > 1e-3

  rng = np.random.default_rng(0)
  tokens_BT = rng.integers(0, V, (4000, 100))
  batch = {"inputs": jnp.asarray(tokens_BT), "mask": jnp.ones((4000, 100))}
  words_BT, documents_BT = skip_grams.words(
    batch, jnp.asarray(stay_V), jax.random.key(4)
  )
  stayed = np.asarray(words_BT)[np.asarray(documents_BT) > 0]
  stayed_V = np.bincount(stayed, minlength=V)
  there_V = np.bincount(tokens_BT.reshape(-1), minlength=V)
  sure = expected_V >= 1
  sure[0] = False
  assert (stayed_V[sure] == there_V[sure]).all()
  assert stayed_V[0] == 0
  drawn = (expected_V < 1) & (COUNTS > 0)
  gone_V = there_V - stayed_V
  observed = np.concatenate([stayed_V[drawn], gone_V[drawn]])
  p, there = expected_V[drawn], there_V[drawn]
  hoped = np.concatenate([p * there, (1 - p) * there])
  chi_square = np.sum((observed - hoped) ** 2 / hoped)
  assert scipy.stats.chi2.sf(chi_square, drawn.sum()) > 1e-3


def test_what_stays_closes_up_in_order():
  stay_V = jnp.asarray([0.0, 1.0, 0.0, 1.0])
  batch = {
    "inputs": jnp.asarray([[1, 2, 3, 0, 1, 3]]),
    "mask": jnp.asarray([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]]),
  }
  words, documents = skip_grams.words(batch, stay_V, jax.random.key(0))
  assert documents.tolist() == [[1, 1, 1, 0, 0, 0]]
  assert words[0, :3].tolist() == [1, 3, 1]


def test_contexts_reach_uniformly_far():
  """Each distance d <= 5 is seen with probability (6 - d) / 5."""
  documents = jnp.ones((3000, 21), jnp.int32)
  pair_BTS = np.asarray(skip_grams.pairs(documents, 5, jax.random.key(5)))
  middle_BS = pair_BTS[:, 10]
  assert (middle_BS == middle_BS[:, ::-1]).all()
  seen = middle_BS[:, 11:].sum(0)
  assert not seen[5:].any()
  reach = middle_BS[:, 11:].sum(1)
  counted = np.bincount(reach, minlength=6)[1:]
  assert counted.sum() == 3000
  assert scipy.stats.chisquare(counted).pvalue > 1e-3


def test_shared_noise_has_the_expectation_of_noise_for_each_pair():
  """The mean of many draws is the loss with the exact mean of the noise."""
  batch = {
    "inputs": jnp.asarray([[1, 2, 3, 4, 5, 6, 7, 8]]),
    "mask": jnp.ones((1, 8)),
  }
  model = make_model(vocab_size=V, dim=D)
  task = word2vec(
    model, counts=COUNTS, window=1, negatives=5, noise=4, subsample=0
  )
  variables = variables_of(task)
  draw = jax.jit(
    jax.vmap(
      lambda rng: task.losses["loss"](
        variables, batch, types.Context(rng, 0, True)
      )[0].value()
    )
  )
  values = np.asarray(draw(jax.random.split(jax.random.key(6), 20_000)))
  x, y = (np.asarray(variables.params[k], float) for k in ("input", "output"))
  share = COUNTS**0.75 / np.sum(COUNTS**0.75)
  row = range(1, 9)
  losses = [
    -log_sigmoid(x[w] @ y[c]) - 5 * share @ log_sigmoid(-y @ x[w])
    for w in row
    for c in (w - 1, w + 1)
    if c in row
  ]
  error = values.std() / len(values) ** 0.5
  assert abs(values.mean() - np.mean(losses)) < 4 * error
  assert error < 0.02 * abs(np.mean(losses))


@pytest.mark.parametrize(
  "settings, told",
  [
    (dict(), "set config.data.tokenizer"),
    (dict(counts=COUNTS, architecture="cbov"), "architecture='cbov'"),
    (dict(counts=COUNTS, window=0), "must be at least 1"),
    (dict(counts=COUNTS, subsample=-1.0), "subsample at least 0"),
  ],
)
def test_a_wrong_setting_of_word2vec_is_told(settings, told):
  with pytest.raises(ValueError, match=told):
    word2vec(make_model(vocab_size=V, dim=D), **settings)


NAMES = ("<unk>", "king", "queen", "man", "woman", "uncle", "aunt", "a b", "")


def evaluator_of(table_VD, workdir, said, **settings):
  known = np.ones(len(table_VD), bool)
  known[0] = False

  def vectors(variables, batch, rng):
    del variables, batch, rng
    return {"vectors": jnp.asarray(table_VD), "known": jnp.asarray(known)}

  context = types.EvalContext(
    task=types.Task(None, {}, {"vectors": vectors}),
    batches=None,
    decode=lambda ids: NAMES[ids[0]],
    encode=None,
    num_classes=None,
    workdir=str(workdir),
    key="words",
    rng=jax.random.key(0),
    load=None,
    say=said.append,
  )
  return make_evaluator(context, **settings)


# man -> woman is + (0, 0, 1) everywhere; the vectors differ in length.
TABLE = np.array(
  [
    [9, 9, 9],
    [2, 0.2, 0],
    [1, 0.1, 1],
    [0.1, 1, 0],
    [0.1, 1, 1],
    [1, 1, 0],
    [1, 1, 1],
    [7, 7, 7],
    [8, 8, 8],
  ],
  np.float32,
)


def test_neighbours_and_analogies_are_told(tmp_path):
  said = []
  (tmp_path / "q.txt").write_text(
    ": family\nman woman king queen\nman woman uncle aunt\n"
    ": unknown words\nman woman prince princess\n\nking queen queen king\n"
  )
  evaluator = evaluator_of(
    TABLE,
    tmp_path,
    said,
    words=("king", "emperor"),
    nearest=2,
    analogies=("king queen man woman",),
    questions=str(tmp_path / "q.txt"),
  )
  unit = TABLE / np.linalg.norm(TABLE, axis=1, keepdims=True)
  right = []
  for a, b, c, d in ((1, 2, 3, 4), (3, 4, 1, 2), (3, 4, 5, 6), (1, 2, 2, 1)):
    score = unit @ (unit[b] - unit[a] + unit[c])
    others = [i for i in range(1, 7) if i not in (a, b, c)]
    right.append(max(others, key=lambda i: score[i]) == d)
  assert 0 < sum(right) < 4
  found = evaluator(None, 3)
  assert found == {
    "words": 6.0,
    "analogies": 4.0,
    "analogy_accuracy": sum(right) / 4,
  }
  cosine = unit[1:7] @ unit[1]
  best = np.argsort(-cosine)[1:3]
  assert said == [
    "king: " + ", ".join(f"{NAMES[i + 1]} {cosine[i]:.2f}" for i in best),
    "emperor: not in the vocabulary",
  ]


def test_the_file_holds_the_same_numbers(tmp_path):
  rng = np.random.default_rng(0)
  table = rng.normal(size=TABLE.shape).astype(np.float32) * 1e-5
  evaluator_of(table, tmp_path, [])(None, 0)
  lines = (tmp_path / "words.txt").read_text().splitlines()
  assert lines[0] == "6 3"
  for line, name, x in zip(lines[1:], NAMES[1:7], table[1:7], strict=True):
    word, *numbers = line.split(" ")
    assert word == name
    assert np.array(numbers, np.float32).tolist() == x.tolist()


@pytest.mark.parametrize(
  "settings, told",
  [
    (dict(analogies=("a b c",)), "analogies: line 1 'a b c' does not have"),
    (dict(questions="/gone.txt"), "/gone.txt"),
  ],
)
def test_wrong_questions_are_told(tmp_path, settings, told):
  with pytest.raises(ValueError, match=told):
    evaluator_of(TABLE, tmp_path, [], **settings)
