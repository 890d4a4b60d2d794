"""U-Net, autoencoders and DiT against diffusers, with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_arrays import array, randomize

from common.names import find


def get(name):
  return find("models", name, "config.model.name")


def conv(m):
  return {
    "kernel": array(m.weight).transpose(2, 3, 1, 0),
    "bias": array(m.bias),
  }


def dense(m):
  return {"kernel": array(m.weight).T, "bias": array(m.bias)}


def norm(m):
  return {"scale": array(m.weight), "bias": array(m.bias)}


def residual(m):
  found = {
    "norm1": norm(m.norm1),
    "conv1": conv(m.conv1),
    "norm2": norm(m.norm2),
    "conv2": conv(m.conv2),
  }
  if getattr(m, "time_emb_proj", None) is not None:
    found["project"] = dense(m.time_emb_proj)
  if m.conv_shortcut is not None:
    found["skip"] = conv(m.conv_shortcut)
  return found


def pixel_attention(m):
  return {
    "norm": norm(m.group_norm),
    "query": dense(m.to_q),
    "key": dense(m.to_k),
    "value": dense(m.to_v),
    "out": dense(m.to_out[0]),
  }


def middle(m):
  return {
    "first": residual(m.resnets[0]),
    "attention": pixel_attention(m.attentions[0]),
    "second": residual(m.resnets[1]),
  }


def listed(items):
  return {str(i): item for i, item in enumerate(items)}


def levels(blocks):
  found = []
  for block in blocks:
    attends = getattr(block, "attentions", [None] * len(block.resnets))
    for first, second in zip(block.resnets, attends, strict=True):
      pair = [residual(first)]
      pair += [] if second is None else [pixel_attention(second)]
      found.append(listed(pair))
  return listed(found)


def pixels(shape, seed=1):
  return np.random.default_rng(seed).normal(size=shape).astype("float32")


def theirs_of(module, x, *args):
  torch = pytest.importorskip("torch")
  with torch.no_grad():
    found = module(torch.tensor(x.transpose(0, 3, 1, 2)), *args)
  return found.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parity
def test_unet_is_diffusers():
  torch = pytest.importorskip("torch")
  diffusers = pytest.importorskip("diffusers")
  widths = (8, 16)
  theirs = randomize(
    diffusers.UNet2DModel(
      sample_size=8,
      in_channels=2,
      out_channels=2,
      layers_per_block=2,
      block_out_channels=widths,
      down_block_types=("DownBlock2D", "AttnDownBlock2D"),
      up_block_types=("AttnUpBlock2D", "UpBlock2D"),
      attention_head_dim=8,
      norm_num_groups=4,
      num_class_embeds=4,
    )
  )
  down, up = theirs.down_blocks, theirs.up_blocks
  params = {
    "time1": dense(theirs.time_embedding.linear_1),
    "time2": dense(theirs.time_embedding.linear_2),
    "class_embedding": {"embedding": array(theirs.class_embedding.weight)},
    "first": conv(theirs.conv_in),
    "down": levels(down),
    "halve": {"0": {"conv": conv(down[0].downsamplers[0].conv)}},
    "middle": middle(theirs.mid_block),
    "up": levels(up),
    "double": {"0": {"conv": conv(up[0].upsamplers[0].conv)}},
    "norm": norm(theirs.conv_norm_out),
    "last": conv(theirs.conv_out),
  }
  x, time, label = pixels((2, 8, 8, 2)), np.array([3, 951]), np.array([3, 0])
  model = get("unet")(
    channels=2, num_classes=3, widths=widths, depth=2, attention=(1,),
    head_dim=8, groups=4,
  )  # fmt: skip
  got, _ = jax.jit(model.apply)(params, {}, x, time, label)
  want = theirs_of(
    lambda *args: theirs(*args, return_dict=False)[0],
    x,
    torch.tensor(time),
    torch.tensor(label),
  )
  np.testing.assert_allclose(got, want, atol=1e-4)
  # Without a class, the last embedding, of "none", is taken.
  none, _ = model.apply(params, {}, x, time)
  assert (
    np.abs(none[0] - want[0]).max() < 1e-4 < np.abs(none[1] - want[1]).max()
  )


def encoder(m, quant_conv):
  blocks = [residual(r) for b in m.down_blocks for r in b.resnets]
  halve = [b.downsamplers[0].conv for b in m.down_blocks if b.downsamplers]
  return {
    "first": conv(m.conv_in),
    "blocks": listed(blocks),
    "halve": listed({"conv": conv(h)} for h in halve),
    "middle": middle(m.mid_block),
    "norm": norm(m.conv_norm_out),
    "last": conv(m.conv_out),
    "out": conv(quant_conv),
  }


def decoder(m, post_quant_conv):
  blocks = [residual(r) for b in m.up_blocks for r in b.resnets]
  double = [b.upsamplers[0].conv for b in m.up_blocks if b.upsamplers]
  return {
    "input": conv(post_quant_conv),
    "first": conv(m.conv_in),
    "middle": middle(m.mid_block),
    "blocks": listed(blocks),
    "double": listed({"conv": conv(d)} for d in double),
    "norm": norm(m.conv_norm_out),
    "last": conv(m.conv_out),
  }


SIZES = {
  "in_channels": 1,
  "out_channels": 1,
  "down_block_types": ("DownEncoderBlock2D",) * 2,
  "up_block_types": ("UpDecoderBlock2D",) * 2,
  "block_out_channels": (8, 16),
  "layers_per_block": 1,
  "latent_channels": 3,
  "norm_num_groups": 4,
}


@pytest.mark.parity
def test_vae_is_diffusers_autoencoder_kl():
  diffusers = pytest.importorskip("diffusers")
  theirs = randomize(diffusers.AutoencoderKL(**SIZES))
  params = {
    "encoder": encoder(theirs.encoder, theirs.quant_conv),
    "decoder": decoder(theirs.decoder, theirs.post_quant_conv),
  }
  model = get("vae")(channels=1, latent=3, widths=(8, 16), groups=4)
  x = pixels((2, 8, 8, 1))
  (mean, log_variance), _ = model.apply(params, {}, x, method="encode")
  found = theirs_of(lambda x: theirs.encode(x).latent_dist.parameters, x)
  np.testing.assert_allclose(
    np.concatenate([mean, log_variance], -1), found, atol=1e-4
  )
  decoded, _ = model.apply(params, {}, mean, method="decode")
  want = theirs_of(lambda z: theirs.decode(z).sample, np.asarray(mean))
  np.testing.assert_allclose(decoded, want, atol=1e-4)


@pytest.mark.parity
def test_vqvae_is_diffusers_vq_model():
  diffusers = pytest.importorskip("diffusers")
  theirs = randomize(
    diffusers.VQModel(**SIZES, num_vq_embeddings=16, vq_embed_dim=3)
  )
  params = {
    "encoder": encoder(theirs.encoder, theirs.quant_conv),
    "codebook": {"vectors": array(theirs.quantize.embedding.weight)},
    "decoder": decoder(theirs.decoder, theirs.post_quant_conv),
  }
  model = get("vqvae")(
    channels=1, latent=3, entries=16, codebook="gradient", widths=(8, 16),
    groups=4,
  )  # fmt: skip
  x = pixels((2, 8, 8, 1))
  got, _ = model.apply(params, {}, x, method="reconstruct")
  np.testing.assert_allclose(
    got["image"], theirs_of(lambda x: theirs(x).sample, x), atol=1e-4
  )
  assert len(np.unique(got["code"])) > 2
  again, _ = model.apply(params, {}, got["code"], method="decode")
  np.testing.assert_allclose(again, got["image"], atol=1e-4)


@pytest.mark.parity
def test_dit_is_diffusers():
  torch = pytest.importorskip("torch")
  diffusers = pytest.importorskip("diffusers")
  theirs = diffusers.DiTTransformer2DModel(
    num_attention_heads=2,
    attention_head_dim=8,
    in_channels=2,
    out_channels=2,
    num_layers=2,
    sample_size=8,
    patch_size=2,
    num_embeds_ada_norm=3,
    norm_num_groups=2,
  )
  randomize(theirs)
  blocks = list(theirs.transformer_blocks)
  # Theirs embeds time and class in each block, the paper once.
  for block in blocks[1:]:
    block.norm1.emb.load_state_dict(blocks[0].norm1.emb.state_dict())
  embedding = blocks[0].norm1.emb

  def each(of):
    return jax.tree.map(
      lambda *x: jnp.stack(x), *(dense(of(b)) for b in blocks)
    )

  params = {
    "patch_embedding": {
      "kernel": conv(theirs.pos_embed.proj)["kernel"].reshape(-1, 16),
      "bias": array(theirs.pos_embed.proj.bias),
    },
    "time1": dense(embedding.timestep_embedder.linear_1),
    "time2": dense(embedding.timestep_embedder.linear_2),
    "class_embedding": {
      "embedding": array(embedding.class_embedder.embedding_table.weight)
    },
    "blocks": {
      "modulation": each(lambda b: b.norm1.linear),
      "attention": {
        "query": each(lambda b: b.attn1.to_q),
        "key": each(lambda b: b.attn1.to_k),
        "value": each(lambda b: b.attn1.to_v),
        "out": each(lambda b: b.attn1.to_out[0]),
      },
      "feed_forward": {
        "up": each(lambda b: b.ff.net[0].proj),
        "down": each(lambda b: b.ff.net[2]),
      },
    },
    "modulation": dense(theirs.proj_out_1),
    "head": dense(theirs.proj_out_2),
  }
  x, time, label = pixels((2, 8, 8, 2)), np.array([3, 951]), np.array([2, 0])
  model = get("dit")(
    channels=2, image_size=8, num_classes=3, layers=2, dim=16, heads=2
  )
  got, _ = jax.jit(model.apply)(params, {}, x, time, label)
  want = theirs_of(
    lambda x, *args: theirs(x, *args, return_dict=False)[0],
    x,
    torch.tensor(time),
    torch.tensor(label),
  )
  np.testing.assert_allclose(got, want, atol=1e-4)
