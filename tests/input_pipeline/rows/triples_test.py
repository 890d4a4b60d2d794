"""Knowledge graphs: their rows, models, task and ranks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.names import find
from input_pipeline.batching import pipeline
from train import run_data, types
from train.evaluators.link_prediction import link_prediction, rank
from train.tasks.triples import triples

HEADER = "?header=head,relation,tail"
ROWS = {"name": "triples"}


def scores(name, params, h, r, t, norm=1):
  """The formula of the paper in NumPy."""
  e = np.asarray(params["entities"], np.float64)
  e /= np.linalg.norm(e, axis=1, keepdims=True)
  w = np.asarray(params["relations"], np.float64)[r]
  if name == "distmult":
    return (e[h] * w * e[t]).sum(-1)
  return -np.linalg.norm(e[h] + w - e[t], norm, axis=-1)


@pytest.mark.parametrize(
  ("name", "settings", "norm"),
  [("transe", {}, 1), ("transe", {"norm": "l2"}, 2), ("distmult", {}, 0)],
)
def test_scores_are_those_of_the_formula_in_every_place(name, settings, norm):
  model = find("models", name, "")(entities=7, relations=3, dim=4, **settings)
  params, state = model.init(jax.random.key(1))
  h, r, t = np.array([[0, 2, 6, 6], [0, 1, 2, 2], [5, 2, 1, 0]])
  found = model.apply(params, state, h, r, t)[0]
  wanted = scores(name, params, h, r, t, norm)
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  every = np.arange(7)[None]
  tails = model.apply(params, state, h, r, method="tails")[0]
  wanted = scores(name, params, h[:, None], r[:, None], every, norm)
  np.testing.assert_allclose(tails, wanted, atol=1e-5)
  heads = model.apply(params, state, r, t, method="heads")[0]
  wanted = scores(name, params, every, r[:, None], t[:, None], norm)
  np.testing.assert_allclose(heads, wanted, atol=1e-5)


@pytest.mark.parametrize("loss", ["margin", "logistic"])
def test_a_loss_corrupts_one_place_and_ignores_padding(loss):
  """Its scores are those of (h, r, t) itself: which place differs is seen."""
  seen = []

  class Model:
    def apply(self, params, state, h, r, t, **how):
      seen.append(np.stack(np.broadcast_arrays(h, r, t), -1))
      return jnp.asarray(0.5 * h + 0.1 * t + 0 * r, jnp.float32), state

  task = triples(Model(), entities=50, negatives=40, loss=loss, margin=2.0)
  batch = {
    "head": jnp.array([3, 4, 9]),
    "relation": jnp.array([0, 1, 0]),
    "tail": jnp.array([7, 5, 9]),
    "mask": jnp.array([1.0, 1.0, 0.0]),
  }
  context = types.Context(jax.random.key(0), jnp.int32(0), True)
  mean, aux = task.losses["loss"](types.Variables({}, {}), batch, context)
  fact_B13, wrong_BK3 = seen
  changed_BK3 = fact_B13 != wrong_BK3
  assert not changed_BK3[..., 1].any()
  assert not (changed_BK3[..., 0] & changed_BK3[..., 2]).any()
  share = changed_BK3[..., 0].mean()
  assert 0.3 < share < 0.7
  weights = np.array([0.5, 0, 0.1])
  s, other = fact_B13[:2] @ weights, wrong_BK3[:2] @ weights
  wanted = np.log1p(np.exp(-s)) + np.log1p(np.exp(other))
  if loss == "margin":
    wanted = np.maximum(0, 2 - s + other)
  np.testing.assert_allclose(mean.value(), wanted.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    aux.metrics["ranked"].value(), (s > other).mean(), rtol=1e-5
  )


def write(folder, name, *lines):
  path = folder / name
  path.write_text("".join("\t".join(line.split()) + "\n" for line in lines))
  return f"csv:{path}{HEADER}"


def test_names_are_those_of_the_training_data(tmp_path):
  train = write(tmp_path, "train.txt", "b likes a", "a knows c", "c likes b")
  held = write(tmp_path, "test.txt", "a likes b", "b knows d", "c knows a")
  where = {"split": "all", "rows": ROWS, "workdir": str(tmp_path)}
  data = pipeline.train(source=train, batch_size=3, shuffle=False, **where)
  batch = next(data.batches(0))
  assert batch["head"].tolist() == [1, 0, 2]
  assert batch["relation"].tolist() == [1, 0, 1]
  assert batch["tail"].tolist() == [0, 2, 1]
  assert {k: run_data.sizes(data)[k] for k in ("entities", "relations")} == {
    "entities": 3,
    "relations": 2,
  }
  kept = json.loads((tmp_path / "triples.json").read_text())
  assert kept == {"entities": ["a", "b", "c"], "relations": ["knows", "likes"]}
  evaluated = pipeline.evaluation(source=held, batch_size=3, **where)
  line = "test.txt:2: tail='d' is not in the training data"
  with pytest.raises(ValueError, match=line):
    next(evaluated.batches(0))
  empty = write(tmp_path, "empty.txt", "a likes b", "a knows x")
  (tmp_path / "empty.txt").write_text("a\tlikes\tb\na\tknows\t\n")
  for data in (
    pipeline.train(source=empty, batch_size=2, split="all", rows=ROWS),
    pipeline.evaluation(source=empty, batch_size=2, **where),
  ):
    with pytest.raises(ValueError, match="empty.txt:2: the field 'tail' is em"):
      next(data.batches(0))
  evaluated = pipeline.evaluation(
    source=held, batch_size=3, on_bad_record="skip", **where
  )
  batch = next(evaluated.batches(0))
  assert batch["mask"].tolist() == [1, 0, 1]
  assert batch["head"].tolist() == [0, 0, 2]
  with pytest.raises(ValueError, match="there are none"):
    pipeline.evaluation(source=held, batch_size=3, split="all", rows=ROWS)
  with pytest.raises(ValueError, match=r"\?header=head,relation,tail"):
    bare = f"csv:{tmp_path}/train.txt"
    pipeline.train(source=bare, batch_size=1, split="all", rows=ROWS)


def test_a_rank_shares_ties_and_distrusts_nan():
  tied = np.array([1.0, 3, 1, 1, 0])
  assert rank(tied, 0, [0]) == 1 + 1 + 2 / 2
  assert rank(tied, 0, [0, 1, 2]) == 1 + 1 / 2
  assert rank(np.full(4, np.nan), 1, [1]) == 4


@pytest.mark.shared_data
def test_link_prediction_is_a_loop_over_nations(shared_data, tmp_path):
  folder = shared_data / "kg_umls_kinship_nations" / "nations"
  uris = [f"csv:{folder}/{n}.txt{HEADER}" for n in ("train", "valid", "test")]
  where = {"split": "all", "rows": ROWS, "workdir": str(tmp_path)}
  sizes = pipeline.train(source=uris[0], batch_size=8, **where).sizes
  assert sizes == {"entities": 14, "relations": 55}
  model = find("models", "transe", "")(**sizes, dim=5)
  variables = types.Variables(*model.init(jax.random.key(3)))
  data = pipeline.evaluation(source=uris[2], batch_size=64, **where)
  context = types.EvalContext(
    task=triples(model, entities=14),
    batches=lambda: data.batches(0),
    decode=None,
    encode=None,
    num_classes=None,
    workdir=str(tmp_path),
    key="test",
    rng=jax.random.key(0),
    load=None,
    say=print,
  )
  found = link_prediction(context, known=uris[:2])(variables, 0)

  lines = [
    [line.split("\t") for line in path.read_text().splitlines()]
    for path in (folder / f"{n}.txt" for n in ("train", "valid", "test"))
  ]
  entities = sorted({x for h, _, t in lines[0] for x in (h, t)})
  relations = sorted({r for _, r, _ in lines[0]})
  known = {tuple(fact) for part in lines for fact in part}
  table = scores(
    "transe",
    variables.params,
    *np.meshgrid(range(14), range(55), range(14), indexing="ij"),
  )
  at = {name: i for i, name in enumerate(entities)}
  ranks = []
  for h, r, t in lines[2]:
    score = table[:, relations.index(r)]
    own = score[at[h], at[t]]
    for others in (
      [(e, r, t) for e in entities if e != h],
      [(h, r, e) for e in entities if e != t],
    ):
      better = [
        score[at[a], at[b]] > own
        for a, _, b in others
        if (a, r, b) not in known
      ]
      ranks.append(1 + sum(better))
  ranks = np.array(ranks)
  assert len(ranks) == 2 * 201
  for name, value in {
    "mrr": (1 / ranks).mean(),
    "hits_at_1": (ranks == 1).mean(),
    "hits_at_10": (ranks <= 10).mean(),
    "mean_rank": ranks.mean(),
  }.items():
    assert found[name] == pytest.approx(value, abs=1e-3), name
