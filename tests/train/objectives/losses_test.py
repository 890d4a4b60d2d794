import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from train.objectives import losses


def data(batch=6, classes=5):
  rng = np.random.default_rng(0)
  logits = (3 * rng.normal(size=(batch, classes))).astype(np.float32)
  labels = rng.integers(classes, size=batch)
  soft = rng.dirichlet(np.ones(classes), size=batch).astype(np.float32)
  return logits, labels, soft


def numpy_cross_entropy(logits, soft):
  logits = logits.astype(float)
  top = logits.max(-1, keepdims=True)
  log_z = top[..., 0] + np.log(np.exp(logits - top).sum(-1))
  return -(soft * (logits - log_z[..., None])).sum(-1), log_z


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("kind", ["integer", "one_hot", "soft"])
def test_cross_entropy_is_numpys(smoothing, z_loss, kind):
  logits, labels, soft = data()
  q = soft if kind == "soft" else np.eye(5, dtype=np.float32)[labels]
  given = labels if kind == "integer" else q
  wanted, log_z = numpy_cross_entropy(
    logits, (1 - smoothing) * q + smoothing / 5
  )
  found = losses.cross_entropy(
    jnp.asarray(logits), jnp.asarray(given), smoothing, z_loss
  )
  np.testing.assert_allclose(found, wanted + z_loss * log_z**2, 2e-6, 1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_and_its_gradient_are_pytorchs(smoothing):
  torch = pytest.importorskip("torch")
  logits, labels, soft = data()
  loss = torch.nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
  for target in (labels, soft):
    x = torch.tensor(logits, requires_grad=True)
    theirs = loss(x, torch.tensor(target))
    theirs.sum().backward()
    y = jnp.asarray(target)
    ours = losses.cross_entropy(jnp.asarray(logits), y, smoothing)
    grad = jax.grad(lambda x, y=y: losses.cross_entropy(x, y, smoothing).sum())
    np.testing.assert_allclose(ours, theirs.detach(), 2e-6, 1e-6)
    np.testing.assert_allclose(grad(jnp.asarray(logits)), x.grad, 1e-5, 1e-6)


def test_cross_entropy_of_tokens_in_bfloat16_is_float32_and_never_overflows():
  logits = jnp.asarray([[[1e4, 0.0], [0.0, -1e4]]], jnp.bfloat16)
  found = losses.cross_entropy(logits, jnp.asarray([[1, 0]]))
  assert found.shape == (1, 2)
  assert found.dtype == jnp.float32
  big = float(logits[0, 0, 0])
  np.testing.assert_array_equal(found, [[big, 0]])


@pytest.mark.parametrize(
  ("logits", "labels"),
  [((2, 5), (3,)), ((2, 3, 5), (2, 5)), ((4, 5), (4, 1))],
)
def test_cross_entropy_refuses_other_shapes(logits, labels):
  with pytest.raises(ValueError, match="labels of shape"):
    losses.cross_entropy(jnp.zeros(logits), jnp.zeros(labels, jnp.int32))


def test_squared_error_is_elementwise_and_refuses_to_broadcast():
  a, b = np.asarray([[1.0, 2.0]]), np.asarray([[4.0, -2.0]])
  found = losses.squared_error(jnp.asarray(a), jnp.asarray(b))
  np.testing.assert_array_equal(found, [[9, 16]])
  with pytest.raises(ValueError, match="targets"):
    losses.squared_error(jnp.zeros((3, 1)), jnp.zeros(3))


def test_adversarial_losses_are_the_papers():
  rng = np.random.default_rng(0)
  real, fake = (3 * rng.normal(size=(2, 7))).astype(np.float32)
  p_real, p_fake = (1 / (1 + np.exp(-x.astype(float))) for x in (real, fake))
  real, fake = jnp.asarray(real), jnp.asarray(fake)
  np.testing.assert_allclose(losses.generator(fake), -np.log(p_fake), 1e-5)
  np.testing.assert_allclose(
    losses.discriminator(real, fake),
    -np.log(p_real) - np.log(1 - p_fake),
    1e-5,
  )
  np.testing.assert_array_equal(losses.generator(fake, "wasserstein"), -fake)
  np.testing.assert_array_equal(
    losses.discriminator(real, fake, "wasserstein"), fake - real
  )
  assert np.isfinite(losses.generator(jnp.asarray([-1e4, 1e4]))).all()


@pytest.mark.parametrize(
  "call",
  [
    lambda: losses.generator(jnp.zeros(2), "hinge"),
    lambda: losses.discriminator(jnp.zeros(2), jnp.zeros(2), "hinge"),
  ],
)
def test_an_unknown_adversarial_loss_is_named(call):
  with pytest.raises(ValueError, match='"hinge"'):
    call()


def network():
  rng = np.random.default_rng(0)
  shapes = [(4, 6), (6,), (6, 1)]
  weights = [rng.normal(size=s).astype(np.float32) for s in shapes]
  return weights, rng.normal(size=(3, 2, 2)).astype(np.float32)


def scores(weights, x):
  w, b, v = weights
  hidden = x.reshape(x.shape[0], -1) @ w + b[None]
  return ((hidden / (1 + hidden**2)) @ v)[:, 0]


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["r1", "gp"])
def test_penalties_and_their_gradients_are_pytorchs(kind):
  torch = pytest.importorskip("torch")
  weights, x = network()
  penalty = losses.r1_penalty if kind == "r1" else losses.gradient_penalty

  def ours(weights):
    return penalty(lambda x: scores(weights, x), jnp.asarray(x), 7.0)

  theirs_weights = [torch.tensor(w, requires_grad=True) for w in weights]
  theirs_x = torch.tensor(x, requires_grad=True)
  total = scores(theirs_weights, theirs_x).sum()
  (slope,) = torch.autograd.grad(total, theirs_x, create_graph=True)
  squared = slope.square().sum((1, 2))
  theirs = 3.5 * squared if kind == "r1" else 7 * (squared.sqrt() - 1) ** 2
  theirs.sum().backward()
  weights = [jnp.asarray(w) for w in weights]
  found = ours(weights)
  assert found.shape == (3,)
  np.testing.assert_allclose(found, theirs.detach(), 1e-5)
  grads = jax.grad(lambda w: ours(w).sum())(weights)
  for a, b in zip(grads, theirs_weights, strict=True):
    # Second derivatives add terms of both signs, of size 10.
    np.testing.assert_allclose(a, b.grad, rtol=1e-4, atol=1e-5)


def test_penalties_of_a_linear_score_are_closed_forms():
  w = jnp.asarray([3.0, 4.0])
  x = jnp.asarray([[1.0, 2.0], [5.0, -1.0]])
  r1 = losses.r1_penalty(lambda x: x @ w, x, 2.0)
  gp = losses.gradient_penalty(lambda x: x @ w, x, 10.0)
  np.testing.assert_allclose(r1, [25, 25], 1e-6)
  np.testing.assert_allclose(gp, [160, 160], 1e-6)


def test_gradient_penalty_of_a_constant_score_has_a_finite_gradient():
  def penalty(w):
    return losses.gradient_penalty(
      lambda x: w * x.sum(-1), jnp.ones((2, 3)), 10.0
    ).sum()

  value, grad = jax.value_and_grad(penalty)(0.0)
  assert value == 20
  assert np.isfinite(grad)


def test_binary_cross_entropy_is_scipys_formula():
  rng = np.random.default_rng(0)
  z = (5 * rng.normal(size=(7, 3))).astype(np.float32)
  y = rng.integers(0, 2, (7, 3)).astype(np.float32)
  y[0] = 0.3  # a share
  p = scipy.special.expit(z.astype(float))
  wanted = -scipy.special.xlogy(y, p) - scipy.special.xlog1py(1 - y, -p)
  found = losses.binary_cross_entropy(jnp.asarray(z), jnp.asarray(y))
  np.testing.assert_allclose(found, wanted, 2e-5, 1e-6)
  assert found.dtype == jnp.float32


def test_binary_cross_entropy_and_its_gradient_stay_finite():
  z, y = jnp.float32([1e4, -1e4, 1e4]), jnp.float32([0, 1, 1])
  found = losses.binary_cross_entropy(z, y)
  np.testing.assert_allclose(found, [1e4, 1e4, 0])
  slope = jax.grad(lambda z: losses.binary_cross_entropy(z, y).sum())(z)
  np.testing.assert_allclose(slope, [1, -1, 0])


def test_the_perceptrons_gradient_is_the_rule_on_the_boundary_too():
  z, y = jnp.float32([2, -2, 0, 0, 3, -3]), jnp.float32([1, 1, 1, 0, 0, 0])
  np.testing.assert_allclose(losses.perceptron(z, y), [0, 2, 0, 0, 3, 0])
  slope = jax.grad(lambda z: losses.perceptron(z, y).sum())(z)
  np.testing.assert_allclose(slope, [0, -1, -1, 1, 1, 0])


@pytest.mark.parametrize("name", ["binary_cross_entropy", "perceptron"])
def test_binary_losses_do_not_broadcast(name):
  with pytest.raises(ValueError, match="shape"):
    getattr(losses, name)(jnp.zeros((4, 1)), jnp.zeros(4))
