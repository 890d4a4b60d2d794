import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_arrays import array, dense, norms, one, randomize

from common.names import find


def get(name):
  return find("models", name, "config.model.name")


# Llama's choices, small.
LLAMA = {
  "positions": "rotary",
  "norm": "rmsnorm",
  "activation": "swiglu",
  "bias": False,
  "tie_embeddings": False,
  "kv_heads": 2,
}


def tiny_decoder(**changes):
  sizes = {"vocab_size": 17, "layers": 3, "dim": 16, "heads": 4, "max_len": 12}
  return get("decoder")(**sizes | changes)


def tokens():
  return np.random.default_rng(2).integers(0, 17, (2, 9))


def image(size, batch=3):
  shape = (batch, size, size, 3)
  return np.random.default_rng(1).normal(size=shape).astype("float32")


def test_decoder_is_transformers_gpt2():
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  theirs = randomize(
    transformers.GPT2LMHeadModel(
      transformers.GPT2Config(
        vocab_size=17, n_positions=12, n_embd=16, n_layer=3, n_head=4
      )
    )
  )
  base = theirs.transformer
  h = list(base.h)
  names = ("query", "key", "value")
  params = {
    "token_embedding": {"embedding": array(base.wte.weight)},
    "position_embedding": {"embedding": array(base.wpe.weight)},
    "final_norm": one(norms([base], lambda m: m.ln_f)),
    "blocks": {
      "attention_norm": norms(h, lambda m: m.ln_1),
      "attention": {
        name: dense(h, lambda m: m.attn.c_attn, split, transpose=False)
        for split, name in enumerate(names)
      }
      | {"out": dense(h, lambda m: m.attn.c_proj, transpose=False)},
      "feed_forward_norm": norms(h, lambda m: m.ln_2),
      "feed_forward": {
        "up": dense(h, lambda m: m.mlp.c_fc, transpose=False),
        "down": dense(h, lambda m: m.mlp.c_proj, transpose=False),
      },
    },
  }
  x = tokens()
  want = theirs(torch.tensor(x, dtype=torch.long)).logits.detach().numpy()
  got, _ = tiny_decoder().apply(params, {}, x)
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_decoder_is_transformers_llama():
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  theirs = randomize(
    transformers.LlamaForCausalLM(
      transformers.LlamaConfig(
        vocab_size=17,
        hidden_size=16,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
      )
    )
  )
  base = theirs.model
  h = list(base.layers)
  params = {
    "token_embedding": {"embedding": array(base.embed_tokens.weight)},
    "unembedding": {"embedding": array(theirs.lm_head.weight)},
    "final_norm": one(norms([base], lambda m: m.norm)),
    "blocks": {
      "attention_norm": norms(h, lambda m: m.input_layernorm),
      "attention": {
        "query": dense(h, lambda m: m.self_attn.q_proj),
        "key": dense(h, lambda m: m.self_attn.k_proj),
        "value": dense(h, lambda m: m.self_attn.v_proj),
        "out": dense(h, lambda m: m.self_attn.o_proj),
      },
      "feed_forward_norm": norms(h, lambda m: m.post_attention_layernorm),
      "feed_forward": {
        "gate": dense(h, lambda m: m.mlp.gate_proj),
        "up": dense(h, lambda m: m.mlp.up_proj),
        "down": dense(h, lambda m: m.mlp.down_proj),
      },
    },
  }
  x = tokens()
  want = theirs(torch.tensor(x, dtype=torch.long)).logits.detach().numpy()
  model = tiny_decoder(hidden=40, **LLAMA)
  got, _ = model.apply(params, {}, x)
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_vit_is_transformers_vit():
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  theirs = randomize(
    transformers.ViTForImageClassification(
      transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=32,
        image_size=12,
        patch_size=4,
        layer_norm_eps=1e-6,
        num_labels=5,
      )
    )
  )
  embeddings = theirs.vit.embeddings
  patch = embeddings.patch_embeddings.projection
  h = list(theirs.vit.layers)
  params = {
    "cls": array(embeddings.cls_token),
    "position_embedding": array(embeddings.position_embeddings),
    "patch_embedding": {
      "kernel": array(patch.weight).transpose(2, 3, 1, 0).reshape(48, 16),
      "bias": array(patch.bias),
    },
    "final_norm": one(norms([theirs.vit], lambda m: m.layernorm)),
    "head": one(dense([theirs], lambda m: m.classifier)),
    "blocks": {
      "attention_norm": norms(h, lambda m: m.layernorm_before),
      "attention": {
        "query": dense(h, lambda m: m.attention.q_proj),
        "key": dense(h, lambda m: m.attention.k_proj),
        "value": dense(h, lambda m: m.attention.v_proj),
        "out": dense(h, lambda m: m.attention.o_proj),
      },
      "feed_forward_norm": norms(h, lambda m: m.layernorm_after),
      "feed_forward": {
        "up": dense(h, lambda m: m.mlp.fc1),
        "down": dense(h, lambda m: m.mlp.fc2),
      },
    },
  }
  x = image(12)
  want = theirs(torch.tensor(x.transpose(0, 3, 1, 2))).logits.detach().numpy()
  model = get("vit")(
    num_classes=5,
    image_size=12,
    variant="S/4",
    layers=3,
    dim=16,
    heads=4,
    hidden=32,
  )
  got, _ = model.apply(params, {}, x)
  np.testing.assert_allclose(got, want, atol=1e-4)


def torch_resnet(counts, bottleneck, width, num_classes):
  """The architecture of arXiv:1512.03385, stride in the 3 x 3, in PyTorch."""
  torch = pytest.importorskip("torch")
  nn = torch.nn

  def conv_norm(inputs, outputs, size, stride=1):
    return nn.Sequential(
      nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
      nn.BatchNorm2d(outputs),
    )

  class Block(nn.Module):
    def __init__(self, inputs, width, stride):
      super().__init__()
      if bottleneck:
        outputs = 4 * width
        convs = [
          conv_norm(inputs, width, 1),
          conv_norm(width, width, 3, stride),
          conv_norm(width, outputs, 1),
        ]
      else:
        outputs = width
        convs = [
          conv_norm(inputs, width, 3, stride),
          conv_norm(width, width, 3),
        ]
      self.convs = nn.ModuleList(convs)
      self.shortcut = None
      if stride > 1 or inputs != outputs:
        self.shortcut = conv_norm(inputs, outputs, 1, stride)

    def forward(self, x):
      y = x
      for conv in self.convs[:-1]:
        y = torch.relu(conv(y))
      y = self.convs[-1](y)
      return torch.relu(y + (self.shortcut(x) if self.shortcut else x))

  class ResNet(nn.Module):
    def __init__(self):
      super().__init__()
      self.stem = conv_norm(3, width, 7, 2)
      self.blocks = nn.ModuleList()
      inputs = width
      for stage, count in enumerate(counts):
        for index in range(count):
          stride = 2 if stage and not index else 1
          self.blocks.append(Block(inputs, width * 2**stage, stride))
          inputs = width * 2**stage * (4 if bottleneck else 1)
      self.head = nn.Linear(inputs, num_classes)

    def forward(self, x):
      x = nn.functional.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
      for block in self.blocks:
        x = block(x)
      return self.head(x.mean(dim=(2, 3)))

  return ResNet()


def resnet_variables(theirs):
  """(params, model_state) of a `torch_resnet`."""

  def params(module):
    conv, norm = module
    return {
      "conv": {"kernel": array(conv.weight).transpose(2, 3, 1, 0)},
      "norm": {"scale": array(norm.weight), "bias": array(norm.bias)},
    }

  def state(module):
    norm = module[1]
    mean, var = array(norm.running_mean), array(norm.running_var)
    # Copies: PyTorch writes its own in place.
    return {"norm": {"mean": mean.copy(), "var": var.copy()}}

  def walk(leaf):
    blocks = {}
    for index, block in enumerate(theirs.blocks):
      convs = {str(i): leaf(conv) for i, conv in enumerate(block.convs)}
      blocks[str(index)] = {"convs": convs}
      if block.shortcut:
        blocks[str(index)]["shortcut"] = leaf(block.shortcut)
    return {"stem": leaf(theirs.stem), "blocks": blocks}

  head = one(dense([theirs], lambda m: m.head))
  return walk(params) | {"head": head}, walk(state)


@pytest.mark.parametrize(
  ("depth", "counts", "bottleneck", "size"),
  [
    (18, (2, 2, 2, 2), False, 40),
    (50, (3, 4, 6, 3), True, 33),
    (50, (3, 4, 6, 3), True, 64),
  ],
)
def test_resnet_is_pytorchs(depth, counts, bottleneck, size):
  torch = pytest.importorskip("torch")
  theirs = randomize(torch_resnet(counts, bottleneck, 8, 5))
  # Small enough to keep 50 random layers from blowing the logits up.
  with torch.no_grad():
    for block in theirs.blocks:
      block.convs[-1][1].weight.mul_(0.3)
  params, state = resnet_variables(theirs)
  model = get("resnet")(num_classes=5, depth=depth, width=8)
  x = image(size)
  x_torch = torch.tensor(x.transpose(0, 3, 1, 2))
  want = theirs(x_torch).detach().numpy()
  assert want.std() > 0.1
  got, _ = jax.jit(model.apply)(params, state, x)
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_resnet_trains_as_pytorchs():
  torch = pytest.importorskip("torch")
  theirs = randomize(torch_resnet((2, 2, 2, 2), False, 8, 5))
  params, state = resnet_variables(theirs)
  model = get("resnet")(num_classes=5, width=8)
  x = image(64, batch=8)
  before = {}

  def remember(module, inputs):
    before[module] = module.running_var.clone()

  def take_biased(module, inputs, outputs):
    # PyTorch normalizes by the biased variance, but averages the unbiased.
    n = outputs.numel() / outputs.shape[1]
    kept = 0.9 * before[module]
    module.running_var = kept + (module.running_var - kept) * (n - 1) / n

  for module in theirs.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      module.register_forward_pre_hook(remember)
      module.register_forward_hook(take_biased)
  x_torch = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
  want = theirs.train()(x_torch)
  want.square().sum().backward()

  def loss(x):
    logits, moved = model.apply(params, state, x, train=True)
    return jnp.square(logits).sum(), (logits, moved)

  grad, (got, moved) = jax.jit(jax.grad(loss, has_aux=True))(x)
  np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-4)
  want_grad = x_torch.grad.numpy().transpose(0, 2, 3, 1)
  scale = np.abs(want_grad).max()
  np.testing.assert_allclose(grad / scale, want_grad / scale, atol=1e-4)
  _, want_state = resnet_variables(theirs)
  assert jax.tree.structure(moved) == jax.tree.structure(want_state)
  for one_moved, one_wanted in zip(
    jax.tree.leaves(moved), jax.tree.leaves(want_state), strict=True
  ):
    np.testing.assert_allclose(one_moved, one_wanted, atol=1e-5)
