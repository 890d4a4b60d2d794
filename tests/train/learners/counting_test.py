"""The learner that counts: what a run leaves, killed or not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UserError
from configs.language import char_ngram
from input_pipeline.batching import pipeline
from input_pipeline.cleaning.parts import ngram as numpy_ngram
from models import Model
from models.language.ngram import ngram
from train import build, loop, trained
from train.generation import streaming
from train.learners.counting import counting
from train.optimization import optimizers
from train.tasks.language_modeling import language_modeling


@pytest.mark.slow
def test_a_run_counts_one_epoch_as_numpy_does(tmp_path):
  config = char_ngram.get_config("smoke")
  data = pipeline.train(**config.data, batch_size=8, seed=config.seed)
  config.total_steps = data.num_examples // 8
  config.checkpoint.every_steps = 10
  workdir = str(tmp_path / "run")
  run = build.run(config, workdir, say=lambda line: None)
  reports = list(loop.fit(run))
  docs = []
  for batch in itertools.islice(data.batches(0), config.total_steps):
    docs += list(
      np.concatenate([batch["inputs"][:, :1], batch["targets"]], axis=1)
    )
  assert len(docs) == config.total_steps * 8
  wanted = numpy_ngram.fit(docs, 3, data.tokenizer.vocab_size)
  held_out = pipeline.evaluation(**config.data, batch_size=8).batches(0)
  nats = weight = 0.0
  for batch in held_out:
    texts = np.concatenate([batch["inputs"][:, :1], batch["targets"]], axis=1)
    for text, mask in zip(texts, batch["mask"], strict=True):
      length = int(mask.sum())
      if length:
        nats -= numpy_ngram.log_prob(wanted, text[: length + 1])[1:].sum()
        weight += length
  got = {k: v for r in reports for k, v in r.scalars.items()}["val/loss"]
  np.testing.assert_allclose(got, nats / weight, rtol=1e-6)

  # What it learned writes text, the ordinary way.
  found = trained.load(workdir)
  prompt = found.parts.data.tokenizer.encode("a")
  options = streaming.Options(max_tokens=5, temperature=0.8)
  pieces = streaming.stream(found, [prompt], [options])
  assert len("".join(piece.text for piece in pieces)) == 5


@pytest.mark.slow
def test_a_run_killed_and_resumed_is_the_same_to_the_bit(tmp_path):
  def state_of(name, stops):
    workdir = str(tmp_path / name)
    for stop in (*stops, None):
      config = char_ngram.get_config("smoke")
      run = build.run(config, workdir, say=lambda line: None)
      for report in loop.fit(run):
        if stop is not None and report.step >= stop:
          break
    return trained.load_state(workdir)

  jax.tree.map(
    np.testing.assert_array_equal, state_of("a", [3]), state_of("b", [])
  )


def test_the_loss_is_that_of_the_counts_before():
  task = language_modeling(ngram(vocab_size=5, order=2, capacity=50))
  learner = counting(task, optimizers.make({}, 10))
  batch = {
    "inputs": jnp.asarray([[0, 1, 0, 1]]),
    "targets": jnp.asarray([[1, 0, 1, 0]]),
    "mask": jnp.ones((1, 4)),
  }
  state = learner.init(jax.random.key(0), batch)
  state, metrics = learner.step(state, batch, jax.random.key(1))
  # Nothing was known: a uniform guess.
  np.testing.assert_allclose(metrics["loss"].value(), np.log(5), rtol=1e-6)
  _, metrics = learner.step(state, batch, jax.random.key(1))
  wanted = numpy_ngram.fit([[0, 1, 0, 1, 0]], 2, 5)
  nats = -numpy_ngram.log_prob(wanted, [0, 1, 0, 1, 0])[1:].mean()
  np.testing.assert_allclose(metrics["loss"].value(), nats, rtol=1e-6)


def test_what_follows_the_epoch_is_not_counted():
  task = language_modeling(ngram(vocab_size=9, order=2, capacity=50))
  learner = counting(task, None, examples=3, total_steps=3, batch_size=2)
  assert "3 of the 3 examples of the training data (100 %)" in learner.note
  assert "config.total_steps=2 counts each of them once" in learner.note
  part = counting(task, None, examples=30, total_steps=3, batch_size=2).note
  assert "6 of the 30" in part and "total_steps=15 counts all" in part
  tokens_BT = jnp.asarray([[0, 1, 2, 3], [4, 5, 6, 7]])
  batch = {"inputs": tokens_BT, "targets": tokens_BT + 1}
  batch["mask"] = jnp.ones((2, 4))
  state = learner.init(jax.random.key(0), batch)
  shares, sums = [], []
  for _ in range(3):
    state, metrics = learner.step(state, batch, jax.random.key(1))
    shares.append(float(metrics["counted"].value()))
    sums.append(int(state.variables.model_state["order_2"]["counts"].sum()))
  np.testing.assert_allclose(shares, [2 / 3, 1, 1])
  assert sums == [10, 15, 15]


def test_models_that_do_not_count_are_refused():
  def model(params, state):
    return Model(lambda rng: (params, state), lambda p, s, x, **_: (x, s))

  for made, message in (
    (model({"kernel": jnp.ones(3)}, {}), "has parameters"),
    (model({}, {}), "has no counts"),
  ):
    learner = counting(language_modeling(made), None)
    with pytest.raises(UserError, match=message):
      learner.init(jax.random.key(0), {})
