"""Masked autoencoders and metric losses beside other libraries."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_arrays import array, randomize

from models.vision.mae import mae
from train import types
from train.objectives import losses
from train.objectives import masked_patches as objective
from train.objectives import metric_learning as metric

torch = pytest.importorskip("torch")

_NAMES = [
  (r"^vit\.embeddings\.patch_embeddings\.projection", "patch_embedding"),
  (r"^vit\.embeddings\.position_embeddings", "position_embedding"),
  (r"^vit\.embeddings\.cls_token", "cls"),
  (r"^vit\.layernorm", "final_norm"),
  (r"^decoder\.decoder_embed", "embedding"),
  (r"^decoder\.decoder_pos_embed", "position_embedding"),
  (r"^decoder\.mask_token", "mask_token"),
  (r"^decoder\.decoder_norm", "final_norm"),
  (r"^decoder\.decoder_pred", "head"),
  (r"^(vit\.layers|decoder\.decoder_layers)\.(\d+)\.", r"L\2."),
  (r"q_proj", "query"),
  (r"k_proj", "key"),
  (r"v_proj", "value"),
  (r"o_proj", "out"),
  (r"mlp\.fc1", "feed_forward.up"),
  (r"mlp\.fc2", "feed_forward.down"),
  (r"layernorm_before", "attention_norm"),
  (r"layernorm_after", "feed_forward_norm"),
]


def placed(module):
  """{"encoder": params, "decoder": params} of transformers' ViTMAE."""
  trees = {"encoder": {}, "decoder": {}}
  for name, tensor in module.state_dict().items():
    tree = trees["encoder" if name.startswith("vit.") else "decoder"]
    path = name
    for regex, replacement in _NAMES:
      path = re.sub(regex, replacement, path)
    *keys, leaf = path.split(".")
    value = array(tensor)
    if value.ndim == 4:
      value = value.transpose(2, 3, 1, 0).reshape(-1, value.shape[0])
    elif value.ndim == 2:
      value = value.T
    if leaf == "weight":
      leaf = "kernel" if value.ndim == 2 else "scale"
    for key in keys:
      tree = tree.setdefault(key, {})
    tree[leaf] = value
  for tree in trees.values():
    names = sorted(key for key in tree if key[0] == "L")
    layers = [tree.pop(key) for key in names]
    tree["blocks"] = jax.tree.map(lambda *each: np.stack(each), *layers)
  return trees


@pytest.mark.parametrize("standardize", [False, True])
def test_masked_autoencoders_are_transformers(standardize):
  from train.tasks.representation.masked_image_modeling import (
    masked_image_modeling,
  )

  transformers = pytest.importorskip("transformers")
  config = transformers.ViTMAEConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=32,
    image_size=12,
    patch_size=4,
    decoder_hidden_size=8,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=20,
    layer_norm_eps=1e-6,
    norm_pix_loss=standardize,
    mask_ratio=0.7,
  )
  theirs = randomize(transformers.ViTMAEForPreTraining(config)).eval()
  model = mae(
    encoder=dict(
      name="vit", variant="S/4", layers=2, dim=16, heads=4, hidden=32
    ),
    channels=3,
    image_size=12,
    layers=1,
    dim=8,
    heads=2,
    hidden=20,
  )
  params = placed(theirs)
  own, _ = jax.eval_shape(model.encoder.init, jax.random.key(0))
  params["encoder"]["head"] = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), own["head"]
  )
  task = masked_image_modeling(
    model, patch=4, ratio=0.7, standardize=standardize
  )
  x = np.random.default_rng(1).normal(size=(3, 12, 12, 3)).astype("float32")
  rng = jax.random.key(3)
  noise = jax.random.uniform(jax.random.split(rng, 3)[0], (3, 9))
  with torch.no_grad():
    found = theirs(
      torch.tensor(x.transpose(0, 3, 1, 2)), noise=torch.tensor(np.array(noise))
    )
  variables = types.Variables(params, {"encoder": {}, "decoder": {}})
  batch = {"image": jnp.asarray(x), "mask": jnp.ones(3)}
  at = types.Context(rng, jnp.int32(0), train=False)
  mean, _ = jax.jit(task.losses["loss"])(variables, batch, at)
  np.testing.assert_allclose(mean.value(), found.loss.item(), rtol=1e-4)
  visible, hidden = objective.visible(noise, 0.7)
  np.testing.assert_array_equal(hidden, found.mask.numpy())
  tokens, _ = model.encoder.apply(
    params["encoder"], {}, batch["image"], visible, method="tokens"
  )
  got, _ = model.decoder.apply(params["decoder"], {}, tokens, visible)
  np.testing.assert_allclose(got, found.logits.numpy(), atol=1e-4)


def test_metric_losses_are_pytorch_metric_learnings():
  name = "pytorch_metric_learning"
  theirs = pytest.importorskip(f"{name}.losses")
  miners = pytest.importorskip(f"{name}.miners")
  reducers = pytest.importorskip(f"{name}.reducers")

  rng = np.random.default_rng(0)
  x = rng.normal(size=(12, 6)).astype(np.float32)
  label, mask = rng.integers(0, 3, 12), np.ones(12, np.float32)
  given = torch.tensor(x), torch.tensor(label)
  arcface = theirs.ArcFaceLoss(3, 6, margin=20.0, scale=16.0)
  kernel = array(arcface.W)
  logits = metric.arcface_logits(
    x, kernel, label, margin=np.deg2rad(20.0), scale=16.0
  )
  nats = losses.cross_entropy(logits, jnp.asarray(label)).mean()
  np.testing.assert_allclose(nats, arcface(*given).item(), rtol=1e-4)
  reduce = reducers.MeanReducer()
  triplet = theirs.TripletMarginLoss(margin=0.3, reducer=reduce)
  unit = metric.normalized(jnp.asarray(x))
  value, weight = metric.triplet(unit, label, mask, margin=0.3)
  wanted = triplet(*given, miners.BatchHardMiner()(*given))
  np.testing.assert_allclose(
    (value * weight).sum() / weight.sum(), wanted.item(), rtol=1e-4
  )
  ntxent = theirs.SelfSupervisedLoss(theirs.NTXentLoss(temperature=0.3))
  other = x + rng.normal(size=x.shape).astype(np.float32)
  nats, _ = metric.nt_xent(x, other, mask, 0.3)
  wanted = ntxent(given[0], torch.tensor(other))
  np.testing.assert_allclose(nats.mean(), wanted.item(), rtol=1e-4)
