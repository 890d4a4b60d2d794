"""Pairs of answers as rows, and DPO's loss by its formula."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.text import dpo_chat
from input_pipeline import rows
from input_pipeline.batching import pipeline
from models.language.decoder import decoder
from train import build, trained, types
from train.adapters.lora import lora
from train.tasks.preference_optimization import preference_optimization

START, END = 256, 257
T, V = 12, 11


def batch_of(tmp_path, records, seq_len=64, **settings):
  path = tmp_path / "pairs.jsonl"
  path.write_text("".join(json.dumps(r) + "\n" for r in records))
  data = pipeline.evaluation(
    source=f"jsonl:{path}",
    split="all",
    tokenizer="byte",
    seq_len=seq_len,
    rows=dict(name="preferences", **settings),
    batch_size=len(records),
  )
  return next(data.batches(0)), data


def test_both_sides_answer_the_same_prompt(tmp_path):
  pair = {"prompt": "hi", "chosen": "good", "rejected": "no"}
  batch, data = batch_of(tmp_path, [pair])
  prompt = [START, *b"user\nhi", END, *b"\n", START, *b"assistant\n"]
  for side in ("chosen", "rejected"):
    ids = [*prompt, *pair[side].encode(), END]
    n = len(ids) - 1
    padding = [0] * (64 - n)
    assert batch[f"{side}_inputs"][0].tolist() == ids[:-1] + padding
    assert batch[f"{side}_targets"][0].tolist() == ids[1:] + padding
    mask = [0] * (len(prompt) - 1) + [1] * (len(pair[side]) + 1) + padding
    assert batch[f"{side}_mask"][0].tolist() == mask
  told, _ = rows.planned(dict(name="preferences"), 64)
  told = {k: (tuple(s), np.dtype(d)) for k, (s, d) in told.items()}
  assert {k: data.spec[k][:2] for k in told} == told
  assert data.texts(np.array([0]))["chosen"][0] == "good"


def test_turns_in_place_of_texts_are_the_same(tmp_path):
  asked = [{"role": "user", "content": "hi"}]
  answer = [{"role": "assistant", "content": "good"}]
  other = [{"role": "assistant", "content": "no"}]
  forms = [
    {"prompt": "hi", "chosen": "good", "rejected": "no"},
    {"prompt": asked, "chosen": answer, "rejected": other},
    {"prompt": "hi", "chosen": asked + answer, "rejected": asked + other},
    {"chosen": asked + answer, "rejected": asked + other},
  ]
  found = [batch_of(tmp_path, [form])[0] for form in forms]
  for other_form in found[1:]:
    for leaf in found[0]:
      np.testing.assert_array_equal(found[0][leaf], other_form[leaf])


def test_only_the_last_answer_counts_and_old_turns_are_dropped(tmp_path):
  turns = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "old" * 9},
    {"role": "assistant", "content": "said"},
    {"role": "user", "content": "new"},
  ]
  pair = {"prompt": turns, "chosen": "yes", "rejected": "n"}
  whole, _ = batch_of(tmp_path, [pair], seq_len=128)
  learned = whole["chosen_targets"][0][whole["chosen_mask"][0] > 0]
  assert learned.tolist() == [*b"yes", END]
  short, _ = batch_of(tmp_path, [pair], seq_len=52)
  kept = [
    *(START, *b"system\nS", END, *b"\n", START, *b"user\nnew", END, *b"\n"),
    *(START, *b"assistant\nyes"),
  ]
  assert short["chosen_inputs"][0].tolist() == kept + [0] * (52 - len(kept))


@pytest.mark.parametrize(
  "record, told",
  [
    ({"prompt": "a", "chosen": "b"}, "no field 'rejected'"),
    ({"chosen": "a", "rejected": "b"}, "no field 'prompt'"),
    ({"prompt": "a", "chosen": 3, "rejected": "b"}, "chosen is not a list"),
    (
      {
        "prompt": "a",
        "chosen": [{"role": "user", "content": "x"}],
        "rejected": "b",
      },
      "chosen does not end with a turn of the assistant",
    ),
    (
      {
        "prompt": "a",
        "chosen": [
          {"role": "user", "content": "x"},
          {"role": "assistant", "content": "x"},
        ],
        "rejected": "b",
      },
      "do not answer the same turns",
    ),
    ({"prompt": "a" * 99, "chosen": "b", "rejected": "c"}, "leaves no room"),
  ],
)
def test_a_bad_record_is_named_in_one_line(tmp_path, record, told):
  with pytest.raises(ValueError, match=told) as error:
    batch_of(tmp_path, [record])
  assert "\n" not in str(error.value) and "pairs.jsonl" in str(error.value)


@pytest.fixture(scope="module")
def pairs():
  """(task, variables away from their reference, batch)."""
  model = decoder(
    vocab_size=V, layers=1, dim=8, heads=2, max_len=T, dtype="float32"
  )
  task = preference_optimization(model, beta=0.3, label_smoothing=0.1)
  rng = np.random.default_rng(0)
  batch = {"mask": np.array([1, 1, 0], np.float32)}
  for side, length in (("chosen", 5), ("rejected", 7)):
    for leaf in ("inputs", "targets"):
      ids = rng.integers(0, V, (3, T)).astype(np.int32)
      batch[f"{side}_{leaf}"] = ids
    mask = (np.arange(T) >= 3) & (np.arange(T) < 3 + length)
    batch[f"{side}_mask"] = np.tile(mask, (3, 1)).astype(np.float32)
  first = jax.jit(task.init)(jax.random.key(0), batch)
  drawn = jax.tree.map(
    lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), first.params
  )
  return model, task, first, first._replace(params=drawn), batch


def by_hand(model, variables, batch, smoothing):
  """The loss and the metrics of arXiv:2305.18290 in float64, pair by pair."""

  forward = jax.jit(model.apply)

  def log_prob(params, side, row):
    logits, _ = forward(
      params, variables.model_state, batch[f"{side}_inputs"][row : row + 1]
    )
    logits = np.asarray(logits[0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    at = np.flatnonzero(batch[f"{side}_mask"][row])
    return log_p[at, batch[f"{side}_targets"][row, at]].sum()

  found = []
  for row in np.flatnonzero(batch["mask"]):
    reward = {
      side: 0.3
      * (
        log_prob(variables.params, side, row)
        - log_prob(variables.frozen["reference"], side, row)
      )
      for side in ("chosen", "rejected")
    }
    margin = reward["chosen"] - reward["rejected"]
    right, wrong = -np.log(1 / (1 + np.exp(np.array([-margin, margin]))))
    loss = (1 - smoothing) * right + smoothing * wrong
    found.append((loss, margin, margin > 0, *reward.values()))
  return np.mean(np.array(found, np.float64), axis=0)


@pytest.mark.parametrize("train, smoothing", [(True, 0.1), (False, 0.0)])
def test_the_loss_is_the_papers(pairs, train, smoothing):
  model, task, _, variables, batch = pairs
  mean, aux = jax.jit(task.losses["loss"])(
    variables, batch, types.Context(jax.random.key(0), 0, train)
  )
  names = ("margin", "accuracy", "chosen_reward", "rejected_reward")
  found = [mean.value(), *(aux.metrics[name].value() for name in names)]
  assert float(mean.weight) == 2  # the third pair is padding
  # float32 sums of up to 7 log-probabilities
  np.testing.assert_allclose(
    found, by_hand(model, variables, batch, smoothing), rtol=2e-5, atol=2e-6
  )


def test_the_gradient_is_the_losss(pairs):
  _, task, _, variables, batch = pairs

  @jax.jit
  def loss(params):
    with_params = variables._replace(params=params)
    return task.losses["loss"](
      with_params, batch, types.Context(None, 0, True)
    )[0].value()

  grads = jax.grad(loss)(variables.params)
  direction = jax.tree.map(
    lambda g: g / np.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(grads))),
    grads,
  )
  step = 1e-2

  def moved(sign):
    return float(
      loss(
        jax.tree.map(
          lambda p, d: p + sign * step * d, variables.params, direction
        )
      )
    )

  slope = (moved(1) - moved(-1)) / (2 * step)
  along = sum(
    float(jnp.vdot(g, d))
    for g, d in zip(
      jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True
    )
  )
  # Central differences err by O(step^2), float32 by 1e-7 / step.
  assert abs(slope - along) < 2e-3 * along


def test_an_adapted_run_keeps_one_base(pairs):
  model, plain_task, _, _, batch = pairs
  adapted = lora(model, rank=2, targets=("kernel$",), trained=("^token",))
  task = preference_optimization(adapted, beta=0.3, label_smoothing=0.1)
  first = jax.jit(task.init)(jax.random.key(0), batch)
  assert set(first.frozen["reference"]) == {"trained"}
  moved = jax.tree.map(lambda x: x + 0.1, first.params)
  moved["base"] = first.params["base"]
  reference = adapted.plain(first.params)
  whole = types.Variables(
    adapted.plain(moved), first.model_state, {"reference": reference}
  )
  found, expected = (
    jax.jit(each.losses["loss"])(
      variables, batch, types.Context(jax.random.key(0), jnp.int32(0), True)
    )[0].value()
    for each, variables in (
      (task, first._replace(params=moved)),
      (plain_task, whole),
    )
  )
  assert abs(expected - np.log(2)) > 1e-3
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_run_begins_at_its_reference_which_is_never_moved(pairs):
  _, task, first, variables, batch = pairs
  for a, b in zip(
    jax.tree.leaves(first.params),
    jax.tree.leaves(first.frozen["reference"]),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  mean, aux = jax.jit(task.losses["loss"])(
    first, batch, types.Context(jax.random.key(0), 0, True)
  )
  assert float(mean.value()) == pytest.approx(np.log(2), rel=1e-6)
  assert float(aux.metrics["accuracy"].value()) == 0.5

  @jax.jit
  def loss(frozen):
    given = types.Variables(variables.params, variables.model_state, frozen)
    return task.losses["loss"](given, batch, types.Context(None, 0, True))[
      0
    ].value()

  for leaf in jax.tree.leaves(jax.grad(loss)(variables.frozen)):
    assert not np.any(leaf)


@pytest.mark.slow
def test_a_run_from_another_has_that_one_as_its_reference(chat_run):
  config = dpo_chat.get_config("smoke")
  config.model.layers = 1
  config.data.seq_len = 128
  config.evals = {}
  config.init_from = chat_run
  run = build.run(config, None, say=lambda line: None)
  variables = run.init().variables
  theirs = trained.load(chat_run).variables.params
  for ours in (variables.params, variables.frozen["reference"]):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  batch = next(run.batches(0))
  # The step is given the memory of both: they are not one.
  state, metrics = jax.jit(run.learner.step, donate_argnums=0)(
    run.init(), batch, run.rng
  )
  assert float(metrics["loss"].value()) == pytest.approx(np.log(2), rel=1e-5)
  jax.tree.map(
    np.testing.assert_array_equal, state.variables.frozen["reference"], theirs
  )


@pytest.mark.parametrize(
  "settings, told",
  [
    (dict(beta=0.0), "beta=0.0 is not positive"),
    (dict(label_smoothing=0.7), "label_smoothing=0.7 is outside"),
  ],
)
def test_wrong_settings_are_told(pairs, settings, told):
  with pytest.raises(ValueError, match=told):
    preference_optimization(pairs[0], **settings)
