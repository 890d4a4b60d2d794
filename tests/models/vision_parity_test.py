"""Image classifiers beside torchvision's and transformers', random weights."""

import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
from flax import nnx
from torch_arrays import array, randomize

from common.names import find
from models.layers.convolutional_stem import ConvolutionalStem

torch = pytest.importorskip("torch")
torchvision = peers.torchvision()
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402

# (regex, replacement): the names of PyTorch's modules -> our paths. "L1/" is a
# layer of stacked blocks.
_VIT = [
  (r"^vit\.", ""),
  (r"encoder\.layers?\.", "layers."),
  (r"self_attn\.", "attention."),
  (r"\b(out|o)_proj", "out"),
  (r"\b([qkv])_proj", lambda m: {"q": "query", "k": "key"}.get(m[1], "value")),
  (r"(layer_)?norm1|layernorm_before", "attention_norm"),
  (r"(layer_)?norm2|layernorm_after", "feed_forward_norm"),
  (r"mlp\.fc1", "feed_forward/up"),
  (r"mlp\.fc2", "feed_forward/down"),
  (r"layers\.(\d+)\.", r"blocks/L\1/"),
  (r"embeddings\.patch_embedding(s\.projection)?", "patch_embedding"),
  (r"embeddings\.position_embeddings?", "position_embedding"),
  (r"embeddings\.cls_token$", "cls"),
  (r"^(post_)?layernorm", "final_norm"),
  (r"^head\.(attention\.)?", "attention_pool."),
  (r"attention_pool\.layernorm", "attention_pool/norm"),
  (r"^classifier", "head"),
]


def stack_names(module):
  """Renames of a ConvStack: convolutions, norms and dense by their order."""
  kinds = {nn.Conv2d: "convs", nn.BatchNorm2d: "norms", nn.Linear: "dense"}
  seen = {}
  for name, part in module.named_modules():
    if type(part) in kinds:
      seen.setdefault(kinds[type(part)], []).append(name)
  last = seen["dense"].pop()
  renames = [(f"^{re.escape(last)}$", "head")]
  for kind, names in seen.items():
    renames += [
      (f"^{re.escape(n)}$", f"{kind}/{i}") for i, n in enumerate(names)
    ]
  return renames


def resnet_names(module):
  """Renames of torchvision's and RT-DETR's residual networks."""
  places, block = {"conv1": "stem/conv", "bn1": "stem/norm", "fc": "head"}, 0
  for i in range(3):
    for leaf, ours in (("convolution", "conv"), ("normalization", "norm")):
      places[f"embedder.embedder.{i}.{leaf}"] = f"stem/convs/{i}/{ours}"
  for stage in range(4):
    theirs = f"layer{stage + 1}"
    layers = getattr(module, theirs, None)
    if layers is None:
      theirs = f"encoder.stages.{stage}.layers"
      layers = module.encoder.stages[stage].layers
    for index in range(len(layers)):
      old, new = f"{theirs}.{index}", f"blocks/{block}"
      for conv in range(3):
        places[f"{old}.conv{conv + 1}"] = f"{new}/convs/{conv}/conv"
        places[f"{old}.bn{conv + 1}"] = f"{new}/convs/{conv}/norm"
        for leaf, ours in (("convolution", "conv"), ("normalization", "norm")):
          where = f"{old}.layer.{conv}.{leaf}"
          places[where] = f"{new}/convs/{conv}/{ours}"
          places[f"{old}.shortcut.{leaf}"] = f"{new}/shortcut/{ours}"
          places[f"{old}.shortcut.1.{leaf}"] = f"{new}/shortcut/{ours}"
      places[f"{old}.downsample.0"] = f"{new}/shortcut/conv"
      places[f"{old}.downsample.1"] = f"{new}/shortcut/norm"
      block += 1
  return [(f"^{re.escape(k)}$", v) for k, v in places.items()]


def convnext_names(module):
  """Renames of torchvision's ConvNeXt."""
  renames, block, down = [], 0, 0
  for i, part in enumerate(module.features):
    old = rf"^features\.{i}"
    if isinstance(part[0], torchvision.models.convnext.CNBlock):
      for j in range(len(part)):
        inside = ("depthwise", "", "norm", "up", "", "down")
        for k, ours in enumerate(inside):
          new = f"blocks/{block}/{ours}"
          renames.append((rf"{old}\.{j}\.block\.{k}$", new))
        renames.append((rf"{old}\.{j}$", f"blocks/{block}"))
        block += 1
      continue
    names = ("stem/conv", "stem/norm")
    if i:
      names = (f"downsamples/{down}/norm", f"downsamples/{down}/conv")
      down += 1
    renames += [(rf"{old}\.{k}$", new) for k, new in enumerate(names)]
  return [
    *renames,
    (r"^classifier\.0$", "final_norm"),
    (r"^classifier\.2$", "head"),
  ]


def placed(module, renames, grid=1):
  """(params, model_state) of a PyTorch module, as our nested dicts.

  A parameter's axes follow from its name and rank; `grid` is the height and
  width of the image that a dense layer reads flat.
  """
  found = {}
  for name, tensor in module.state_dict().items():
    if name.endswith("num_batches_tracked"):
      continue
    path, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias", "running_mean", "running_var"):
      path, leaf = name, ""
    for regex, replacement in renames:
      path = re.sub(regex, replacement, path)
    value = array(tensor)
    if value.ndim == 4 and leaf == "weight":
      value = value.transpose(2, 3, 1, 0)
      if "patch_embedding" in path:
        value = value.reshape(-1, value.shape[-1])
    elif path == "position_embedding":
      value, leaf = value.reshape(1, *value.shape[-2:]), ""
    elif value.ndim == 2 and leaf == "weight":
      value = value.T
      if path == "dense/0":
        flat = value.reshape(-1, grid, grid, value.shape[-1])
        value = flat.transpose(1, 2, 0, 3).reshape(value.shape)
    kernel = "kernel" if value.ndim > 1 else "scale"
    leaf = {"weight": kernel, "running_mean": "mean", "running_var": "var"}.get(
      leaf, leaf
    )
    found["/".join(filter(None, [*path.split("."), leaf]))] = value
  trees = {}, {}
  for path, value in found.items():
    keys = path.split("/")
    tree = trees[keys[-1] in ("mean", "var")]
    for key in keys[:-1]:
      tree = tree.setdefault(key, {})
    tree[keys[-1]] = value
  return tuple(map(stacked, trees))


def stacked(tree):
  """The tree, with the layers L0, L1, … of a dict along a leading axis."""
  if not isinstance(tree, dict):
    return tree
  if "L0" in tree:
    layers = [stacked(tree[f"L{i}"]) for i in range(len(tree))]
    return jax.tree.map(lambda *each: jnp.stack(each), *layers)
  return {key: stacked(value) for key, value in tree.items()}


def merged(params, given):
  """`params` of our initialization, with what `given` has."""
  return {
    key: merged(value, given[key])
    if isinstance(value, dict) and key in given
    else given.get(key, value)
    for key, value in params.items()
  }


def image(*size):
  shape = (2, *(size * 2 if len(size) == 1 else size), 3)
  return np.random.default_rng(1).normal(size=shape).astype("float32")


def compare(theirs, name, settings, x, renames, *, of=None, method=None, **how):
  """Asserts that outputs agree, given the weights of `theirs`; its maximum."""
  model = find("models", name, "model")(num_classes=5, **settings)
  params, state = placed(theirs, renames, **how)
  if method:  # whose model has a last layer that `theirs` lacks
    own, _ = model.init(jax.random.key(0))
    params = merged(own, params)
  with torch.no_grad():
    want = (of or theirs)(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
  assert want.std() > 0.05
  got, _ = jax.jit(model.apply, static_argnames="method")(
    params, state, x, method=method
  )
  np.testing.assert_allclose(got, want, atol=1e-4)
  return np.abs(got - want).max()


def small(module, pattern, factor=0.2):
  """The module, with such parameters made small, so that logits are too."""
  with torch.no_grad():
    for name, parameter in module.named_parameters():
      if re.search(pattern, name):
        parameter.mul_(factor)
  return module


@pytest.mark.parametrize(
  ("kind", "size"),
  [("alexnet", 224), ("alexnet", 100), ("vgg11", 64), ("vgg16_bn", 32)],
)
def test_plain_networks_are_torchvisions(kind, size):
  theirs = getattr(torchvision.models, kind)(num_classes=5)
  settings = {"image_size": size, "hidden": (16, 12), "width": 4}
  if kind.startswith("vgg"):
    settings |= {"depth": int(kind[3:5]), "batchnorm": kind.endswith("bn")}
  widths = settings["width"] / 64
  swap_widths(theirs, widths, settings["hidden"])
  theirs = randomize(theirs)
  grid = 6 if kind == "alexnet" else 7
  renames = stack_names(theirs)
  name = "alexnet" if kind == "alexnet" else "vgg"
  compare(theirs, name, settings, image(size), renames, grid=grid)


def swap_widths(module, factor, hidden):
  """Makes a published network narrow; torchvision has no argument for it."""
  channels, dense = None, None
  for parent in list(module.modules()):
    for name, part in list(parent.named_children()):
      if isinstance(part, nn.Conv2d):
        inputs = channels or part.in_channels
        channels = int(part.out_channels * factor)
        new = nn.Conv2d(
          inputs, channels, part.kernel_size, part.stride, part.padding
        )
      elif isinstance(part, nn.BatchNorm2d):
        new = nn.BatchNorm2d(channels)
      elif isinstance(part, nn.Linear):
        if dense is None:
          dense = [int(part.in_features * factor), *hidden, 5]
        new = nn.Linear(*dense[:2])
        dense = dense[1:]
      else:
        continue
      setattr(parent, name, new)


@pytest.mark.parametrize("kind", ["wide", "d"])
def test_wide_and_d_residual_networks_are_theirs(kind):
  if kind == "wide":
    resnet = torchvision.models.resnet
    theirs = resnet.ResNet(
      resnet.Bottleneck, [1, 2, 1, 1], num_classes=5, width_per_group=128
    )
    theirs = small(randomize(theirs), r"bn3\.weight", 0.01)
    of = method = None
    settings = {"blocks": (1, 2, 1, 1), "bottleneck": True, "inner": 2.0}
  else:
    config = transformers.RTDetrResNetConfig(
      embedding_size=16, hidden_sizes=[32, 64, 128, 256], depths=[2, 1, 2, 1]
    )
    theirs = randomize(transformers.RTDetrResNetBackbone(config))
    theirs = small(theirs, r"layer\.2\.normalization\.weight")

    def of(x):
      return theirs.encoder(theirs.embedder(x))[0].mean(dim=(2, 3))

    method = "features"
    settings = {"blocks": (2, 1, 2, 1), "bottleneck": True, "stem": "deep"}
    settings |= {"shortcut": "pool", "width": 8, "stem_width": 16}
  x, names = image(50, 70), resnet_names(theirs)
  compare(theirs, "resnet", settings, x, names, of=of, method=method)


def test_convnext_is_torchvisions():
  setting = torchvision.models.convnext.CNBlockConfig
  theirs = torchvision.models.ConvNeXt(
    [setting(8, 12, 2), setting(12, 16, 1), setting(16, None, 2)], num_classes=5
  )
  for name, parameter in theirs.named_parameters():
    if name.endswith("layer_scale"):
      parameter.data = torch.rand_like(parameter[:, 0, 0])
  randomize(theirs)

  def of(x):
    for module in theirs.modules():
      if isinstance(module, torchvision.models.convnext.CNBlock):
        scale = module.layer_scale.data
        module.layer_scale.data = scale.reshape(-1, 1, 1)
    return theirs(x)

  settings = {"depths": (2, 1, 2), "dims": (8, 12, 16)}
  names = [*convnext_names(theirs), (r"\.layer_scale$", "/scale")]
  names += [
    (rf"^features\.{i}\.{j}/scale$", f"blocks/{n}/scale")
    for n, (i, j) in enumerate(((1, 0), (1, 1), (3, 0), (5, 0), (5, 1)))
  ]
  compare(theirs, "convnext", settings, image(40), names, of=of)


_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
_SIZES |= {"image_size": 12, "patch_size": 4, "layer_norm_eps": 1e-6}
_OURS = {"image_size": 12, "variant": "S/4", "layers": 2, "dim": 16, "heads": 4}


def test_attention_pooling_is_siglips():
  config = transformers.SiglipVisionConfig(**_SIZES, intermediate_size=32)
  theirs = randomize(transformers.SiglipVisionModel(config))
  theirs = getattr(theirs, "vision_model", theirs)
  with torch.no_grad():
    pool = theirs.head.attention
    for name in ("q", "k", "v"):
      part = "qkv".index(name)
      linear = nn.Linear(16, 16)
      linear.weight.copy_(pool.in_proj_weight.chunk(3)[part])
      linear.bias.copy_(pool.in_proj_bias.chunk(3)[part])
      setattr(theirs.head, f"{name}_proj", linear)

  def of(x):
    return theirs(x).pooler_output

  settings = _OURS | {"hidden": 32, "pool": "map", "activation": "gelu"}
  theirs_weights = Weights(theirs, r"in_proj")
  compare(
    theirs_weights, "vit", settings, image(12), _VIT, of=of, method="features"
  )


class Weights:
  """A module of which some parameters are left out."""

  def __init__(self, module, but):
    self.module, self.but = module, but

  def state_dict(self):
    """The parameters of the module that are not left out."""
    return {
      name: tensor
      for name, tensor in self.module.state_dict().items()
      if not re.search(self.but, name)
    }


class ChannelNorm(nn.LayerNorm):
  """Layer norm of the channels, which PyTorch has first."""

  def forward(self, x):
    return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_convolutional_stem_is_that_of_torchs_layers():
  theirs = randomize(
    nn.Sequential(
      *(nn.Conv2d(3, 4, 3, 2, 1), ChannelNorm(4, eps=1e-6), nn.ReLU()),
      *(nn.Conv2d(4, 8, 3, 2, 1), ChannelNorm(8, eps=1e-6), nn.ReLU()),
      nn.Conv2d(8, 8, 1),
    )
  )
  names = ("convs/0", "norms/0", "convs/1", "norms/1", "last")
  renames = [
    (f"^{place}$", name)
    for place, name in zip((0, 1, 3, 4, 6), names, strict=True)
  ]
  params, _ = placed(theirs, renames)
  stem = ConvolutionalStem(
    3,
    8,
    4,
    norm={"eps": 1e-6},
    rngs=nnx.Rngs(0),
    dtype=jnp.float32,
    param_dtype=jnp.float32,
  )
  nnx.update(stem, nnx.restore_int_paths(params))
  image = torch.randn(2, 3, 12, 8)
  found = stem(jnp.asarray(array(image.permute(0, 2, 3, 1))))
  expected = theirs(image).flatten(2).transpose(1, 2)
  np.testing.assert_allclose(found, array(expected), atol=1e-5)


@pytest.mark.parametrize("size", [(20, 28), (8, 12)])
def test_positions_of_other_images_are_interpolated_as_theirs(size):
  config = transformers.ViTConfig(**_SIZES, intermediate_size=32, num_labels=5)
  theirs = randomize(transformers.ViTForImageClassification(config))

  def of(x):
    return theirs(x, interpolate_pos_encoding=True).logits

  settings = _OURS | {"hidden": 32}
  compare(theirs, "vit", settings, image(*size), _VIT, of=of)


class Mixer(nn.Module):
  """arXiv:2105.01601, appendix E, in PyTorch."""

  def __init__(self):
    super().__init__()
    self.patch_embedding = nn.Conv2d(3, 16, 4, 4)
    self.blocks = nn.ModuleList(nn.Module() for _ in range(2))
    for block in self.blocks:
      for name, dim, hidden in (("tokens", 9, 12), ("channels", 16, 24)):
        norm = "token_norm" if name == "tokens" else "channel_norm"
        part = nn.Module()
        part.up, part.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        setattr(block, norm, nn.LayerNorm(16, eps=1e-6))
        setattr(block, name, part)
    self.final_norm = nn.LayerNorm(16, eps=1e-6)
    self.head = nn.Linear(16, 5)

  def forward(self, x):
    """Logits."""

    def mixed(part, y):
      return part.down(nn.functional.gelu(part.up(y)))

    x = self.patch_embedding(x).flatten(2).transpose(1, 2)
    for block in self.blocks:
      y = block.token_norm(x).transpose(1, 2)
      x = x + mixed(block.tokens, y).transpose(1, 2)
      x = x + mixed(block.channels, block.channel_norm(x))
    return self.head(self.final_norm(x).mean(dim=1))


def test_a_mixer_is_the_papers():
  settings = {"image_size": 12, "variant": "S/4", "layers": 2, "dim": 16}
  settings |= {"token_hidden": 12, "hidden": 24}
  names = [(r"blocks\.(\d+)\.", r"blocks/L\1/")]
  compare(randomize(Mixer()), "mixer", settings, image(12), names)


class PreActivation(nn.Module):
  """arXiv:1603.05027 with the widths of arXiv:1605.07146, in PyTorch."""

  def __init__(self, counts, width, stem_width, bottleneck):
    super().__init__()
    self.stem = nn.Conv2d(3, stem_width, 3, padding=1, bias=False)
    self.blocks, inputs = nn.ModuleList(), stem_width
    for stage, count in enumerate(counts):
      for index in range(count):
        stride = 2 if stage and not index else 1
        inner = width * 2**stage
        shapes = [(inputs, inner, 3, stride), (inner, inner, 3, 1)]
        if bottleneck:
          shapes = [(inputs, inner, 1, 1), (inner, inner, 3, stride)]
          shapes.append((inner, 4 * inner, 1, 1))
        block, outputs = nn.Module(), shapes[-1][1]
        block.convs = nn.ModuleList(nn.Module() for _ in shapes)
        for part, (i, o, size, step) in zip(block.convs, shapes, strict=True):
          part.norm = nn.BatchNorm2d(i)
          part.conv = nn.Conv2d(i, o, size, step, size // 2, bias=False)
        block.shortcut = None
        if stride > 1 or inputs != outputs:
          block.shortcut = nn.Module()
          block.shortcut.conv = nn.Conv2d(
            inputs, outputs, 1, stride, bias=False
          )
        self.blocks.append(block)
        inputs = outputs
    self.norm, self.head = nn.BatchNorm2d(inputs), nn.Linear(inputs, 5)

  def forward(self, x):
    """Logits."""
    x = self.stem(x)
    for block in self.blocks:
      y = first = torch.relu(block.convs[0].norm(x))
      y = block.convs[0].conv(y)
      for part in block.convs[1:]:
        y = part.conv(torch.relu(part.norm(y)))
      x = y + (block.shortcut.conv(first) if block.shortcut else x)
    return self.head(torch.relu(self.norm(x)).mean(dim=(2, 3)))


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_pre_activation_network_is_the_papers(bottleneck):
  theirs = PreActivation((1, 2, 1), 6, 4, bottleneck)
  theirs = small(randomize(theirs), r"convs\.[12]\.conv", 0.5)
  settings = {"blocks": (1, 2, 1), "width": 6, "stem_width": 4, "version": 2}
  settings |= {"stem": "cifar", "bottleneck": bottleneck}
  names = [(r"^stem", "stem/last")]
  compare(theirs, "resnet", settings, image(10), names)


def test_the_benchmark_of_speed_compares_equal_networks():
  pictures = importlib.import_module("benchmarks.speed.pictures")
  for model, module, size in pictures.pairs(small=True).values():
    ours, count = pictures.ours_of(model, size, 2)
    theirs, other = pictures.theirs_of(module, size, 2)
    assert count == other
    assert ours().shape == theirs().shape == (2, 10)
  assert pictures.speed(lambda: None, 8, 0.0) > 0
