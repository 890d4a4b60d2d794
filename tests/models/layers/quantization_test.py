"""8-bit products against NumPy's integers, ml_dtypes' casts and qwix's own."""

import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax import ad_checkpoint
from tiers import slow_but

from common.names import find
from configs.language import lm_stdlib
from models.layers import quantization, transformer
from train import build, loop

qwix = pytest.importorskip("qwix", reason="the extra quantization is absent")

# What operands are cast to, and what their greatest magnitude becomes.
CASTS = {
  "int8": (np.int8, 127),
  "float8_e4m3fn": (ml_dtypes.float8_e4m3fn, 448.0),
  "float8_e5m2": (ml_dtypes.float8_e5m2, 57344.0),
}


def rounded(x, dtype, axis):
  """(what the 8 bits hold, as int32 or float32, and its scales)."""
  cast, greatest = CASTS[dtype]
  scale = np.abs(x).max(axis, keepdims=True) / np.float32(greatest)
  if dtype == "int8":
    return np.rint(x / scale).astype(cast).astype(np.int32), scale
  return (x / scale).astype(cast).astype(np.float32), scale


def arrays(seed=0, rows=24, inputs=32, outputs=16):
  rng = np.random.default_rng(seed)
  # Channels of many sizes, as activations have them.
  x = rng.normal(size=(rows, inputs)) * np.exp(rng.normal(size=(rows, 1)))
  kernel = rng.normal(size=(inputs, outputs)) * 0.1
  g = rng.normal(size=(rows, outputs)) ** 3
  return [a.astype(np.float32) for a in (x, kernel, g)]


def relative(found, expected):
  return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("how", quantization.FORMATS)
def test_product_and_gradients_are_the_formula(how):
  forward, backward = quantization.FORMATS[how]
  x, kernel, g = arrays()
  X, s = rounded(x, forward, 1)
  W, t = rounded(kernel, forward, 0)
  to_x, to_x_scale = rounded(g * t, backward, 1)
  to_kernel, to_kernel_scale = rounded(s * g, backward, 0)

  y, vjp = jax.vjp(lambda x, k: quantization.matmul(x, k, how), x, kernel)
  dx, dkernel = vjp(g)

  # Integers sum exactly; float32 sums in orders of its own.
  assert relative(y, (X @ W) * s * t) < 1e-6
  assert relative(dx, (to_x @ W.T) * to_x_scale) < 1e-6
  assert relative(dkernel, (X.T @ to_kernel) * to_kernel_scale) < 1e-6
  # And the formula stays near the product that it stands for.
  near = {"int8": 0.02, "fp8": 0.06}[how]
  assert relative(y, x @ kernel) < near
  assert relative(dx, g @ kernel.T) < 2 * near
  assert relative(dkernel, x.T @ g) < 2 * near
  assert relative(y, x @ kernel) > 1e-4  # it does round


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # qwix's own
@pytest.mark.parametrize("how", quantization.FORMATS)
def test_it_is_quantized_training_as_qwix_does_it(how):
  """Its public way: a provider that rewrites a whole model."""
  forward, backward = quantization.FORMATS[how]
  x, kernel, g = arrays(1)
  calibration = {"int8": f"absmax,{127.5 / 127}", "fp8": "absmax"}[how]
  linear = nnx.Linear(32, 16, use_bias=False, rngs=nnx.Rngs(0))
  linear.kernel[...] = jnp.asarray(kernel)
  rule = qwix.QtRule(
    weight_qtype=forward,
    act_qtype=forward,
    bwd_qtype=backward,
    weight_calibration_method=calibration,
    act_calibration_method=calibration,
    bwd_calibration_method=calibration,
  )
  theirs = qwix.quantize_model(linear, qwix.QtProvider([rule]), x)

  def loss(model, x):
    return (model(x) * g).sum()

  expected, (dmodel, dx) = nnx.value_and_grad(loss, argnums=(0, 1))(theirs, x)
  found, gradients = jax.value_and_grad(
    lambda x, k: (quantization.matmul(x, k, how) * g).sum(), (0, 1)
  )(x, kernel)

  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert relative(gradients[0], dx) < 1e-6
  assert relative(gradients[1], dmodel.kernel[...]) < 1e-6


@pytest.mark.parametrize("how", quantization.FORMATS)
def test_leading_axes_are_rows(how):
  x, kernel, g = arrays(2)

  def gradients(x, g):
    y, vjp = jax.vjp(lambda x, k: quantization.matmul(x, k, how), x, kernel)
    return y, *vjp(g)

  flat = gradients(x, g)
  apart = gradients(x.reshape(4, 6, -1), g.reshape(4, 6, -1))
  for a, b in zip(flat, apart, strict=True):
    assert relative(b.reshape(a.shape), a) < 1e-6


def test_half_precision_is_float32_rounded_once():
  x, kernel, g = (jnp.asarray(a, jnp.bfloat16) for a in arrays(3))

  def products(dtype):
    y, vjp = jax.vjp(
      lambda x, k: quantization.matmul(x, k, "int8"),
      x.astype(dtype),
      kernel.astype(dtype),
    )
    return y, *vjp(g.astype(dtype))

  for a, b in zip(products("bfloat16"), products("float32"), strict=True):
    assert a.dtype == jnp.bfloat16
    # Half a unit of 2^-7, bfloat16's last place, and float32's own error.
    np.testing.assert_allclose(a.astype("float32"), b, rtol=1.01 * 2**-8)


def test_all_three_products_have_operands_of_eight_bits():
  for how, types in {
    "int8": ["xi8", "xi8", "xi8"],
    "fp8": ["xf8E4M3FN", "xf8E5M2", "xf8E5M2"],
  }.items():
    x, kernel, g = arrays()
    step = jax.jit(
      jax.value_and_grad(
        lambda x, k, g, how=how: (quantization.matmul(x, k, how) * g).sum(),
        (0, 1),
      )
    )
    dots = [
      line.split(" : ")[1]
      for line in step.lower(x, kernel, g).as_text().splitlines()
      if "dot_general" in line
    ]
    assert len(dots) == 3
    assert all(kind in dot for kind, dot in zip(types, dots, strict=True)), dots


def test_a_long_sum_does_not_overflow():
  rows = 2**18  # 127 * 127 * 2^18 is nearly 2^32: twice past int32's end
  x = -np.ones((rows, 1), np.float32)
  _, vjp = jax.vjp(
    lambda k: quantization.matmul(x, k, "int8"), np.ones((1, 1), np.float32)
  )
  (dkernel,) = vjp(x)
  np.testing.assert_allclose(dkernel, rows, rtol=0.01)

  with pytest.raises(ValueError, match="overflow"):
    quantization.matmul(
      np.ones((1, rows), np.float32), np.ones((rows, 1), np.float32), "int8"
    )


@pytest.mark.parametrize("how", quantization.FORMATS)
def test_zeros_and_what_is_not_finite_stay_so(how):
  x, kernel, _ = arrays()
  x[3] = 0
  x[4, 5] = np.inf
  x[6, 7] = np.nan
  y = np.asarray(quantization.matmul(x, kernel, how))
  assert not y[3].any()
  assert not np.isfinite(y[[4, 6]]).any()
  assert np.isfinite(np.delete(y, [4, 6], axis=0)).all()


def tiny(how, **changes):
  sizes = {"vocab_size": 17, "layers": 2, "dim": 16, "heads": 4, "max_len": 12}
  return find("models", "decoder", "")(matmul=how, **sizes | changes)


@pytest.mark.slow
@pytest.mark.parametrize("how", slow_but(["int8"], quantization.FORMATS))
def test_scan_and_remat_change_nothing(how):
  tokens = jax.random.randint(jax.random.key(2), (2, 9), 0, 17)
  params, _ = tiny(how).init(jax.random.key(0))

  def gradients(**changes):
    apply = tiny(how, **changes).apply
    return jax.jit(
      jax.value_and_grad(
        lambda p: (jax.nn.log_softmax(apply(p, {}, tokens)[0]) ** 2).mean()
      )
    )(params)

  def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

  expected = gradients()
  for changes in ({"scan": False}, {"remat": "full"}, {"remat": "dots"}):
    found = gradients(**changes)
    # A sum in another order may move a value over the edge between two steps
    # of the format; few are so near an edge.
    assert relative(flat(found), flat(expected)) < 0.01, changes


def run_losses(how, mesh, devices, steps=30):
  config = lm_stdlib.get_config("smoke")
  config.total_steps = steps
  config.log_every_steps = 1
  config.evals = {}
  config.mesh = mesh
  config.sharding = [(".*", "model")]
  if how:
    config.model.matmul = how
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "devices", lambda *a: devices)
    run = build.run(config, None)
    return np.array([r.scalars["train/loss"] for r in loop.fit(run)]), run


@pytest.fixture(scope="module")
def float32_losses():
  return run_losses(None, {"data": 1}, jax.devices()[:1])[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", slow_but(["fp8"], quantization.FORMATS))
def test_it_learns_nearly_as_float32_and_on_eight_devices(how, float32_losses):
  one, run = run_losses(how, {"data": 1}, jax.devices()[:1])

  assert float32_losses[-1] < 0.95 * float32_losses[0]
  np.testing.assert_allclose(one, float32_losses, rtol=0.02)
  assert np.abs(one - float32_losses).max() > 1e-5  # it does round
  params = run.abstract_state.variables.params
  assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  if jax.device_count() < 8:
    pytest.skip("needs 8 (simulated) devices")
  eight, run = run_losses(how, {"data": 4, "tensor": 2}, jax.devices(), 10)
  kernel = run.abstract_state.variables.params["blocks"]["attention"]["out"][
    "kernel"
  ]
  assert np.prod(kernel.sharding.shard_shape(kernel.shape)) < kernel.size
  # Sums in another order move few values over the edge between two steps.
  np.testing.assert_allclose(eight, one[:10], rtol=0, atol=1e-4)


@pytest.mark.parametrize("how", quantization.FORMATS)
def test_a_vision_transformer_too(how):
  image = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))

  def features(how):
    model = find("models", "vit", "")(
      num_classes=4,
      channels=1,
      image_size=8,
      variant="Ti/4",
      layers=2,
      dim=16,
      heads=2,
      matmul=how,
    )
    params, _ = model.init(jax.random.key(0))
    return model.apply(params, {}, image, method="features")[0]

  error = relative(features(how), features(None))
  assert 1e-4 < error < 0.1


def test_none_is_the_plain_product():
  x, kernel, _ = arrays()
  found = jax.jit(lambda x, k: quantization.matmul(x, k, None))(x, kernel)
  plain = jax.jit(lambda x, k: x @ k)(x, kernel)
  assert np.asarray(found).tobytes() == np.asarray(plain).tobytes()


def test_an_unknown_format_and_a_missing_extra_are_named(monkeypatch):
  with pytest.raises(ValueError, match="'int4' is none of: None, int8, fp8"):
    tiny("int4")
  monkeypatch.setitem(sys.modules, "qwix", None)
  tiny(None)
  with pytest.raises(ValueError, match=r'extra "quantization": pip install'):
    tiny("int8")


def test_remat_keeps_what_it_keeps_of_the_plain_product(capsys):
  x, kernel, _ = (jnp.asarray(a, jnp.bfloat16) for a in arrays())

  def kept(how, policy):
    def layer(x, kernel):
      return jnp.tanh(quantization.matmul(x, kernel, how)).sum()

    layer = jax.checkpoint(layer, policy=transformer.REMAT[policy])
    ad_checkpoint.print_saved_residuals(layer, x, kernel)
    lines = capsys.readouterr().out.splitlines()
    return sorted(line.split(" ")[0] for line in lines)

  inputs = ["bf16[24,32]", "bf16[32,16]"]
  assert kept("int8", "full") == kept(None, "full") == inputs
  expected = ["bf16[24,16]", *inputs]
  assert kept("int8", "dots") == kept(None, "dots") == expected
  assert kept("int8", "none") == kept(None, "none")
