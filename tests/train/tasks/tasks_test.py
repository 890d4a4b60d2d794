"""Tasks against NumPy, and against the models and losses called directly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import Model
from models.language.decoder import decoder
from models.vision.gan import Gan
from train import types
from train.tasks.binary_classification import binary_classification
from train.tasks.classification import classification
from train.tasks.generative_adversarial import generative_adversarial
from train.tasks.image_classification import image_classification
from train.tasks.language_modeling import language_modeling
from train.tasks.regression import regression

V = 11  # tokens
C = 4  # classes
W = 8  # the window: max_len


def table_model():
  """Each token predicts the next by a row of a table."""
  return Model(
    lambda rng: ({"table": jax.random.normal(rng, (V, V))}, {}),
    lambda params, state, x, **_: (params["table"][x], state),
  )


def dense(inputs, outputs, act=jnp.tanh):
  """One layer, to arrays of shape `outputs`; "features" are what it reads."""
  size = int(np.prod(outputs))

  def init(rng):
    return {"kernel": jax.random.normal(rng, (inputs, size))}, {"calls": 0}

  def apply(params, model_state, x, rng=None, train=False, method=None):
    flat = x.reshape(x.shape[0], -1)
    new = {"calls": model_state["calls"] + int(train)}
    if method == "features":
      return flat, new
    y = act(flat @ params["kernel"]).reshape(x.shape[0], *outputs)
    return y, new

  return Model(init, apply)


@functools.cache
def language_model(positions):
  """(task, variables, full): a decoder whose logits differ clearly.

  Untied: a tied one at random goes on with the token that it has just read.
  """
  model = decoder(
    vocab_size=V,
    layers=1,
    dim=8,
    heads=2,
    max_len=W,
    positions=positions,
    tie_embeddings=False,
    scan=False,
  )
  task = language_modeling(model)
  variables = jax.jit(task.init)(jax.random.key(0), {})
  leaves, treedef = jax.tree.flatten(variables.params)
  rngs = jax.random.split(jax.random.key(4), len(leaves))
  leaves = [
    jax.random.normal(rng, x.shape) for x, rng in zip(leaves, rngs, strict=True)
  ]
  params = jax.tree.unflatten(treedef, leaves)
  variables = types.Variables(params, variables.model_state)
  full = jax.jit(lambda x: model.apply(params, variables.model_state, x)[0])
  return task, variables, full


def log_softmax(x):
  x = np.asarray(x, float)
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def tokens():
  """Three rows of five: ragged ends, and a row without a real token.

  The last token of the vocabulary occurs nowhere.
  """
  rng = np.random.default_rng(0)
  ids = rng.integers(V - 1, size=(3, 6))
  mask = (np.arange(5) < np.asarray([5, 2, 0])[:, None]).astype(np.float32)
  return {
    "inputs": jnp.asarray(ids[:, :-1], jnp.int32),
    "targets": jnp.asarray(ids[:, 1:], jnp.int32),
    "mask": jnp.asarray(mask),
    "bytes": jnp.asarray([9.0, 3.0, 0.0]),
  }


def labelled():
  """Five images of 2 x 2, of which the last is padding."""
  rng = np.random.default_rng(1)
  return {
    "image": jnp.asarray(rng.normal(size=(5, 2, 2, 1)), jnp.float32),
    "label": jnp.asarray([3, 0, 1, 2, 3], jnp.int32),
    "mask": jnp.asarray([1.0, 1.0, 1.0, 1.0, 0.0]),
  }


def smoothed(labels, s, size):
  return (1 - s) * np.eye(size)[labels] + s / size


@pytest.mark.parametrize("train", [False, True])
def test_language_modeling_is_numpys(train):
  task, batch = (
    language_modeling(table_model(), label_smoothing=0.2, z_loss=0.01),
    tokens(),
  )
  variables = task.init(jax.random.key(0), batch)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(None, 0, train)
  )

  logits = np.asarray(variables.params["table"], float)[batch["inputs"]]
  q = smoothed(batch["targets"], 0.2 if train else 0, V)
  nats = -(q * log_softmax(logits)).sum(-1)
  if train:
    nats += 0.01 * np.log(np.exp(logits).sum(-1)) ** 2
  mask = np.asarray(batch["mask"])
  wanted = (mask * nats).sum()
  assert float(mean.total) == pytest.approx(wanted, rel=1e-6)
  assert float(mean.weight) == 7
  if train:
    plain = -np.take_along_axis(
      log_softmax(logits), np.asarray(batch["targets"])[..., None], -1
    )
    got = aux.metrics.pop("loss_unsmoothed")
    wanted = (mask * plain[..., 0]).sum() / 7
    assert float(got.value()) == pytest.approx(wanted, rel=1e-6)
    assert aux.metrics == {}
  else:
    bits = float(aux.metrics["bits_per_byte"].value())
    assert bits == pytest.approx(wanted / np.log(2) / 12, rel=1e-6)
  found = task.predict["logits"](variables, batch, None)
  np.testing.assert_allclose(found, logits, 1e-6)


def test_language_modeling_without_bytes_or_cache_has_less():
  batch = tokens()
  del batch["bytes"]
  task = language_modeling(table_model())
  variables = task.init(jax.random.key(0), batch)
  _, aux = task.losses["loss"](variables, batch, types.Context(None, 0, False))
  assert aux.metrics == {}
  assert set(task.predict) == {"logits"}


def test_padding_whose_logits_are_nan_does_not_count():
  task, batch = language_modeling(table_model()), tokens()
  variables = task.init(jax.random.key(0), batch)
  table = variables.params["table"].at[V - 1].set(jnp.nan)
  poisoned = variables._replace(params={"table": table})
  hole = batch["mask"] == 0
  padded = {**batch, "inputs": jnp.where(hole, V - 1, batch["inputs"])}
  for train in (False, True):
    wanted, _ = task.losses["loss"](
      variables, batch, types.Context(None, 0, train)
    )
    found, aux = task.losses["loss"](
      poisoned, padded, types.Context(None, 0, train)
    )
    assert found == wanted
    assert all(np.isfinite(m.value()) for m in aux.metrics.values())
  batch = labelled()
  task = image_classification(dense(4, (C,)))
  variables = task.init(jax.random.key(0), batch)
  padded = {**batch, "image": batch["image"].at[-1].set(jnp.nan)}
  wanted = task.losses["loss"](variables, batch, types.Context(None, 0, False))
  found = task.losses["loss"](variables, padded, types.Context(None, 0, False))
  assert found == wanted


def loss_and_gradient(task, variables):
  """batch -> the loss and its gradient, compiled once."""

  def total(params, batch):
    mean, aux = task.losses["loss"](
      variables._replace(params=params), batch, types.Context(None, 0, True)
    )
    return mean.total / mean.weight, aux.metrics

  both = jax.jit(jax.value_and_grad(total, has_aux=True))
  return lambda batch: both(variables.params, batch)


def started(task):
  return task, task.init(jax.random.key(0), {})


def garbage(batch):
  """The batch with something else, and absurd, in what is masked."""
  rng = np.random.default_rng(9)

  def other(key, x):
    if key in ("mask", "bytes"):
      return x
    if x.dtype == jnp.int32:
      # Labels may be out of range; inputs must be tokens.
      high = V if key == "inputs" else 10**6
      noise = rng.integers(high, size=x.shape)
    else:
      noise = 1e3 * rng.normal(size=x.shape)
    mask = batch["mask"]
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return jnp.where(mask > 0, x, noise.astype(x.dtype))

  return {key: other(key, x) for key, x in batch.items()}


def points():
  rng = np.random.default_rng(2)
  return {
    "x": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
    "y": jnp.asarray(rng.normal(size=(4, 2)), jnp.float32),
    "mask": jnp.asarray([1.0, 0.0, 1.0, 0.0]),
  }


@pytest.mark.parametrize(
  ("make_task", "make_batch"),
  [
    # A real model, causal: what comes after, or in other rows, is not seen.
    (lambda: language_model("learned")[:2], tokens),
    (lambda: started(image_classification(dense(4, (C,)))), labelled),
    (lambda: started(regression(dense(3, (2,)))), points),
  ],
  ids=["language_modeling", "image_classification", "regression"],
)
def test_garbage_in_padding_changes_neither_loss_nor_gradient(
  make_task, make_batch
):
  (task, variables), batch = make_task(), make_batch()
  both = loss_and_gradient(task, variables)
  wanted, found = both(batch), both(garbage(batch))
  # One program on equal real rows: equal up to the order of sums.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-6, 1e-7), found, wanted
  )


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_image_classification_is_numpys_of_mixed_soft_labels(train, mixup):
  batch, rng = labelled(), jax.random.key(4)
  model = dense(4, (C,))
  task = image_classification(model, label_smoothing=0.1, mixup=mixup)
  variables = task.init(jax.random.key(0), batch)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(rng, 0, train)
  )

  lam = 1.0
  if train and mixup:
    lam = float(jax.random.beta(jax.random.split(rng)[0], mixup, mixup))
    assert 0.01 < lam < 0.99
  image = np.asarray(batch["image"], float)
  label, mask = np.asarray(batch["label"]), np.asarray(batch["mask"])
  image = lam * image + (1 - lam) * image[::-1]
  q = smoothed(label, 0.1 if train else 0, C)
  q = lam * q + (1 - lam) * q[::-1]
  kernel = np.asarray(variables.params["kernel"], float)
  logits = np.tanh(image.reshape(5, -1) @ kernel)
  nats = -(q * log_softmax(logits)).sum(-1)
  assert float(mean.value()) == pytest.approx((mask * nats).sum() / 4, rel=1e-5)
  assert float(mean.weight) == 4
  correct = mask * (logits.argmax(-1) == label)
  assert float(aux.metrics["accuracy"].value()) == correct.sum() / 4
  assert aux.model_state == {"calls": int(train)}


def test_image_classification_takes_shares_of_classes():
  hard = labelled()
  q = np.random.default_rng(0).dirichlet(np.ones(C), 5).astype(np.float32)
  batch = {**hard, "label": jnp.asarray(q)}
  task = image_classification(dense(4, (C,)), label_smoothing=0.1)
  variables = task.init(jax.random.key(0), batch)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(jax.random.key(1), 0, True)
  )
  kernel = np.asarray(variables.params["kernel"], float)
  image = np.asarray(batch["image"], float).reshape(5, -1)
  logits, mask = np.tanh(image @ kernel), np.asarray(batch["mask"])
  nats = -((0.9 * q + 0.1 / C) * log_softmax(logits)).sum(-1)
  assert float(mean.value()) == pytest.approx((mask * nats).sum() / 4, rel=1e-5)
  correct = mask * (logits.argmax(-1) == q.argmax(-1))
  assert float(aux.metrics["accuracy"].value()) == correct.sum() / 4
  # One class alone is the same as its number.
  for train in (False, True):
    one_hot = {**hard, "label": jax.nn.one_hot(hard["label"], C)}
    found, wanted = (
      task.losses["loss"](
        variables, each, types.Context(jax.random.key(1), 0, train)
      )
      for each in (one_hot, hard)
    )
    assert float(found[0].value()) == pytest.approx(float(wanted[0].value()))
    assert found[1].metrics == wanted[1].metrics


def test_mixup_draws_anew_with_each_key():
  batch = labelled()
  task = image_classification(dense(4, (C,)), mixup=0.4)
  variables = task.init(jax.random.key(0), batch)
  found = {
    float(
      task.losses["loss"](
        variables, batch, types.Context(jax.random.key(i), 0, True)
      )[0][0]
    )
    for i in range(4)
  }
  assert len(found) == 4


@pytest.mark.parametrize("train", [True, False])
def test_classification_of_other_fields_is_that_of_images(train):
  batch = labelled()
  twin = image_classification(dense(4, (C,)), label_smoothing=0.1)
  variables = twin.init(jax.random.key(0), batch)
  context = types.Context(jax.random.key(1), jnp.int32(0), train)
  wanted = twin.losses["loss"](variables, batch, context)
  renamed = {"sound": batch["image"], "digit": batch["label"]}
  task = classification(
    dense(4, (C,)), inputs=("sound",), label="digit", label_smoothing=0.1
  )
  given = {**renamed, "mask": batch["mask"]}
  found = task.losses["loss"](variables, given, context)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)
  for name in ("logits", "features"):
    ours = task.predict[name](variables, given, None)
    theirs = twin.predict[name](variables, batch, None)
    np.testing.assert_array_equal(ours, theirs)
  with pytest.raises(ValueError, match="no field 'sound'; valid: image"):
    task.losses["loss"](variables, batch, context)
  with pytest.raises(ValueError, match="inputs='x' is not a list of fields"):
    classification(dense(4, (C,)), inputs="x")


def test_image_classification_predicts_logits_and_features():
  batch = labelled()
  task = image_classification(dense(4, (C,)))
  variables = task.init(jax.random.key(0), batch)
  flat = np.asarray(batch["image"]).reshape(5, 4)
  features = task.predict["features"](variables, batch, None)
  np.testing.assert_array_equal(features, flat)
  logits = task.predict["logits"](variables, batch, None)
  wanted = np.tanh(flat @ np.asarray(variables.params["kernel"]))
  np.testing.assert_allclose(logits, wanted, 1e-5)


def test_regression_is_the_masked_mean_square():
  batch, model = points(), dense(3, (2,))
  task = regression(model)
  variables = task.init(jax.random.key(0), batch)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(None, 0, True)
  )
  outputs = np.tanh(np.asarray(batch["x"]) @ variables.params["kernel"])
  error = (outputs - np.asarray(batch["y"])) ** 2
  assert float(mean.value()) == pytest.approx(error[::2].mean(), rel=1e-6)
  assert float(mean.weight) == 4  # two rows of two outputs
  assert aux.model_state == {"calls": 1}
  found = task.predict["outputs"](variables, batch, None)
  np.testing.assert_allclose(found, outputs, 1e-5)


def test_regression_reads_one_number_an_example():
  """[B] is [B, 1], never broadcast to [B, B]."""
  model = Model(
    lambda rng: ({"w": jnp.float32([[2.0]])}, {}),
    lambda params, state, x, **_: (x @ params["w"], state),
  )
  task = regression(model)
  batch = {
    "x": jnp.float32([1, 2, 3]),
    "y": jnp.int32([2, 4, 9]),
    "mask": jnp.ones(3),
  }
  variables = task.init(jax.random.key(0), batch)
  mean, _ = task.losses["loss"](variables, batch, types.Context(None, 0, True))
  assert float(mean.value()) == 3.0


def test_binary_classification_of_several_labels():
  """The mean over examples and labels; padding does not count."""
  batch = points()
  rng = np.random.default_rng(0)
  y = rng.integers(0, 2, batch["y"].shape)
  batch = {**batch, "y": jnp.int32(y)}
  task = binary_classification(dense(3, (2,), lambda x: x))
  variables = task.init(jax.random.key(0), batch)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(None, 0, False)
  )
  z = np.asarray(batch["x"], float) @ np.asarray(variables.params["kernel"])
  p = 1 / (1 + np.exp(-z))
  real = np.asarray(batch["mask"]) > 0
  nats = -(y * np.log(p) + (1 - y) * np.log(1 - p))[real]
  assert float(mean.value()) == pytest.approx(nats.mean(), rel=1e-5)
  right = ((p > 0.5) == y)[real].mean()
  assert float(aux.metrics["accuracy"].value()) == pytest.approx(right)
  np.testing.assert_allclose(
    task.predict["logits"](variables, batch, None), z, rtol=1e-4, atol=1e-5
  )


def test_one_binary_label_has_the_logits_of_two_classes():
  batch = {k: v for k, v in points().items() if k != "y"}
  batch["label"] = jnp.int32(np.arange(len(batch["mask"])) % 2)
  task = binary_classification(dense(3, (1,), lambda x: x))
  variables = task.init(jax.random.key(0), batch)
  logits_B2 = task.predict["logits"](variables, batch, None)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(None, 0, False)
  )
  log_p = jax.nn.log_softmax(logits_B2)
  own = jnp.take_along_axis(log_p, batch["label"][:, None], 1)[:, 0]
  wanted = types.mean_of(-own, batch["mask"])
  assert float(mean.value()) == pytest.approx(float(wanted.value()), rel=1e-5)
  hits = jnp.argmax(logits_B2, -1) == batch["label"]
  wanted = types.mean_of(hits, batch["mask"]).value()
  assert float(aux.metrics["accuracy"].value()) == float(wanted)
  with pytest.raises(ValueError, match="loss='hinge'"):
    binary_classification(dense(3, (1,)), loss="hinge")


def gan_parts(act=jnp.tanh, **settings):
  """(task, Gan, variables, batch, rng)."""
  generator = dense(3, (2, 2, 1), act)
  model = Gan(generator, dense(4, (), lambda x: x + 0.3 * x**2), 3)
  rng = np.random.default_rng(5)
  batch = {
    "image": jnp.asarray(rng.uniform(-1, 1, (6, 2, 2, 1)), jnp.float32),
    "mask": jnp.asarray([1.0, 1.0, 0.0, 1.0, 0.0, 1.0]),
  }
  task = generative_adversarial(model, **settings)
  return task, model, task.init(jax.random.key(0), batch), batch


def numpy_players(variables):
  """(z -> image, image -> logits, image -> slope), in NumPy."""
  g, d = (
    np.asarray(variables.params[p]["kernel"], float)
    for p in ("generator", "discriminator")
  )

  def generate(rng):
    z = np.asarray(jax.random.normal(rng, (6, 3)), float)
    return np.tanh(z @ g).reshape(6, 2, 2, 1)

  def score(image):
    x = (image.reshape(6, -1) @ d)[:, 0]
    return x + 0.3 * x**2

  def slope(image):
    x = image.reshape(6, -1) @ d
    return (1 + 0.6 * x) * d.T

  return generate, score, slope


def softplus(x):
  return np.log1p(np.exp(x))


@pytest.mark.parametrize("loss", ["nonsaturating", "wasserstein"])
@pytest.mark.parametrize("penalty", [{}, {"r1": 2.0}, {"gp": 10.0}])
def test_generative_adversarial_is_numpys(loss, penalty):
  task, _, variables, batch = gan_parts(loss=loss, **penalty)
  generate, score, slope = numpy_players(variables)
  real = np.asarray(batch["image"], float)
  kept = np.asarray(batch["mask"]) > 0
  rng = jax.random.key(8)

  mean, aux = task.losses["generator"](
    variables, batch, types.Context(rng, 0, True)
  )
  fake = score(generate(rng))
  wanted = softplus(-fake) if loss == "nonsaturating" else -fake
  assert float(mean.value()) == pytest.approx(wanted[kept].mean(), rel=1e-5)
  assert aux.metrics == {}
  # Who plays for the second time keeps what it wrote; the other's stands.
  calls = {"generator": {"calls": 1}, "discriminator": {"calls": 0}}
  assert aux.model_state == calls

  mean, aux = task.losses["discriminator"](
    variables, batch, types.Context(rng, 0, True)
  )
  z_rng, mix_rng = jax.random.split(rng)
  image = generate(z_rng)
  d_real, d_fake = score(real), score(image)
  if loss == "nonsaturating":
    wanted = softplus(-d_real) + softplus(d_fake)
  else:
    wanted = d_fake - d_real
  if "r1" in penalty:
    wanted = wanted + 2.0 / 2 * (slope(real) ** 2).sum(-1)
  if "gp" in penalty:
    u = np.asarray(jax.random.uniform(mix_rng, (6, 1, 1, 1)), float)
    norm = np.sqrt((slope(u * real + (1 - u) * image) ** 2).sum(-1))
    wanted = wanted + 10 * (norm - 1) ** 2
  assert float(mean.value()) == pytest.approx(wanted[kept].mean(), rel=1e-5)
  assert float(mean.weight) == 4
  for name, logits in (("real_logit", d_real), ("fake_logit", d_fake)):
    found = float(aux.metrics[name].value())
    assert found == pytest.approx(logits[kept].mean(), rel=1e-5)
  calls = {"generator": {"calls": 0}, "discriminator": {"calls": 1}}
  assert aux.model_state == calls


def loss_at(task, player, variables, batch, step):
  context = types.Context(jax.random.key(8), jnp.int32(step), True)
  mean, aux = task.losses[player](variables, batch, context)
  return float(mean.value()), aux.model_state


def test_a_lazy_penalty_counts_for_the_steps_without_it():
  found = []
  for settings in ({}, {"r1": 2.0}, {"r1": 2.0, "r1_every": 3}):
    task, _, variables, batch = gan_parts(**settings)
    found.append(
      [
        loss_at(task, "discriminator", variables, batch, step)[0]
        for step in (0, 1, 3)
      ]
    )
  none, each, lazy = np.asarray(found)
  np.testing.assert_allclose(lazy - none, (each - none) * [3, 0, 3], atol=1e-5)


def test_path_lengths_are_lazy_and_their_mean_is_kept():
  k_WP = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)

  def apply(params, state, x_BX, *key, method=None, **how):
    del key, how
    if method == "styles":
      return x_BX[:, None] * jnp.ones((1, 2, 1)), state
    w_BW = x_BX.sum(1) if method else x_BX
    return (w_BW @ params["k"]).reshape(-1, 2, 2, 1), state

  generator = Model(lambda rng: ({"k": k_WP}, {}), apply)
  model = Gan(generator, dense(4, ()), 3, styles=True)
  _, _, _, batch = gan_parts()
  task = generative_adversarial(model, path_length=2.0, path_every=2)
  variables = task.init(jax.random.key(0), batch)
  plain = generative_adversarial(model)
  without, _ = loss_at(
    plain, "generator", plain.init(jax.random.key(0), batch), batch, 0
  )
  at0, kept = loss_at(task, "generator", variables, batch, 0)
  # With 1 % of the mean length, (length - mean)^2 is about its square.
  length = 100 * float(kept["path_length"])
  assert at0 - without > 2 * 2 * (0.99 * length) ** 2 * 0.99
  later = variables._replace(model_state=kept)
  at1, after = loss_at(task, "generator", later, batch, 1)
  assert at1 == pytest.approx(without)
  assert after["path_length"] == kept["path_length"]


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"loss": "hinge"}, "'hinge' is neither"),
    ({"path_length": 2.0}, "path_length needs a generator of styles"),
    ({"augment": 1.5}, "augment=1.5"),
    ({"truncation": 2.0}, "truncation=2.0"),
    ({"r1_every": 0}, "r1_every=0"),
  ],
)
def test_wrong_settings_of_a_gan_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    gan_parts(**settings)


def test_images_are_one_a_row_within_bounds_and_differ_by_key():
  # A generator that leaves [-1, 1].
  task, _, variables, batch = gan_parts(act=lambda x: 3 * x)
  found = [
    np.asarray(task.predict["samples"](variables, batch, jax.random.key(i)))
    for i in (0, 0, 1)
  ]
  assert found[0].shape == batch["image"].shape
  assert np.abs(found[0]).max() == 1
  np.testing.assert_array_equal(found[0], found[1])
  assert not np.array_equal(found[0], found[2])


def greedy(full, given, prompt):
  """The best token again and again, by forward passes over the last W."""
  tokens = np.asarray(given).copy()
  for row, mask in zip(tokens, np.asarray(prompt), strict=True):
    for i in range(1, tokens.shape[1]):
      if mask[i]:
        continue
      seen = row[max(0, i - W) : i]
      # What follows is not seen by a causal model; one shape compiles once.
      window = np.full((1, W), 3, np.int32)
      window[0, : len(seen)] = seen
      row[i] = np.asarray(full(window))[0, len(seen) - 1].argmax()
  return tokens


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("length", [W, W + 7])
def test_samples_continue_their_prompts(positions, length):
  task, variables, full = language_model(positions)
  given = np.random.default_rng(0).integers(V, size=(3, length))
  prompt = np.arange(length) < np.asarray([[1], [3], [length - 2]])
  batch = {
    "tokens": jnp.asarray(given, jnp.int32),
    "mask": jnp.asarray(prompt, jnp.float32),
    "temperature": jnp.float32(0),
  }
  samples = jax.jit(task.predict["samples"])
  found = np.asarray(samples(variables, batch, jax.random.key(0)))
  wanted = greedy(full, given, prompt)
  np.testing.assert_array_equal(found, wanted)
  assert len(set(wanted[0])) > 2  # not one token again and again

  hot = {**batch, "temperature": jnp.float32(1)}
  drawn = [
    np.asarray(samples(variables, hot, jax.random.key(i))) for i in (0, 1)
  ]
  for one in drawn:
    np.testing.assert_array_equal(one[prompt], given[prompt])
  assert not np.array_equal(*drawn)
