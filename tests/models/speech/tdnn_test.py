"""The time-delay network against NumPy, frame by frame."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.speech.tdnn import tdnn

SIZES = dict(
  in_features=3, num_classes=4, widths=(5, 6), taps=(3, 5), dilations=(1, 2)
)


def by_hand(params, frames):
  """Logits of a sequence of real frames, float64."""

  def moments(x):
    return x.mean(0), np.sqrt(x.var(0) + 1e-5)

  mean, std = moments(frames)
  x = (frames - mean) / std
  for i, (taps, gap) in enumerate(zip((3, 5), (1, 2), strict=True)):
    dense, norm = params["layers"][str(i)], params["norms"][str(i)]
    kernel = dense["kernel"].reshape(taps, x.shape[1], -1)
    y = np.zeros((len(x), kernel.shape[2])) + dense["bias"]
    for t in range(len(x)):
      for k in range(taps):
        place = t + (k - taps // 2) * gap
        if 0 <= place < len(x):
          y[t] += x[place] @ kernel[k]
    y -= y.mean(1, keepdims=True)
    y /= np.sqrt(y.var(1, keepdims=True) + 1e-5)
    x = np.maximum(y * norm["scale"] + norm["bias"], 0)
  pooled = np.concatenate(moments(x))
  return pooled @ params["head"]["kernel"] + params["head"]["bias"]


def test_it_is_numpys_and_padding_changes_nothing():
  model = tdnn(**SIZES)
  params, state = jax.jit(model.init)(jax.random.key(0))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: np.float32(x + 0.1 * rng.normal(size=x.shape)), params
  )
  lengths = (7, 1, 12)
  sounds = [2 + 3 * rng.normal(size=(n, 3)) for n in lengths]
  plain = jax.tree.map(lambda x: np.asarray(x, float), params)
  wanted = [by_hand(plain, sound) for sound in sounds]
  for total in (12, 19):
    x_BTF = np.full((4, total, 3), 99.0, np.float32)
    mask_BT = np.zeros((4, total), np.float32)
    for b, sound in enumerate(sounds):
      x_BTF[b, : len(sound)], mask_BT[b, : len(sound)] = sound, 1
    found, _ = jax.jit(model.apply)(params, state, x_BTF, mask_BT)
    np.testing.assert_allclose(found[:3], wanted, rtol=1e-4, atol=1e-4)
    assert np.isfinite(found[3]).all()  # The row has no frame.


def test_types_and_what_is_refused():
  model = tdnn(**SIZES, dtype="bfloat16", dropout=0.1)
  params, state = jax.eval_shape(model.init, jax.random.key(0))
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("f4")}
  x, mask = jnp.zeros((2, 8, 3)), jnp.ones((2, 8))
  logits, _ = jax.eval_shape(
    lambda p: model.apply(p, state, x, mask, rng=jax.random.key(0), train=True),
    params,
  )
  assert (logits.shape, logits.dtype) == ((2, 4), jnp.float32)
  for changes, line in (
    ({"taps": (3,)}, r"taps = \(3,\) and dilations"),
    ({"taps": (3, 4)}, r"taps = \(3, 4\) are not odd"),
    ({"widths": (0, 4)}, r"widths = \(0, 4\)"),
  ):
    with pytest.raises(ValueError, match=line):
      tdnn(**SIZES | changes)
