"""Classifiers of pixels beside torchvision's, and a U-Net by the paper."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
from torch_arrays import array, randomize

from models.vision.deeplab import deeplab
from models.vision.resnet import resnet
from models.vision.unet_segmentation import unet_segmentation
from train import build, initialization
from train.optimization import parameter_rules

COUNTS = (1, 1, 2, 1)


def renames(head: str):
  """(regex, our path) of the modules of torchvision's."""
  found = [
    (r"backbone\.conv1", "backbone/stem/conv"),
    (r"backbone\.bn1", "backbone/stem/norm"),
    (r"classifier\.0\.convs\.4\.1", "pyramid/mean/conv"),
    (r"classifier\.0\.convs\.4\.2", "pyramid/mean/norm"),
    (r"classifier\.0\.convs\.(\d)\.0", r"pyramid/branches/\1/conv"),
    (r"classifier\.0\.convs\.(\d)\.1", r"pyramid/branches/\1/norm"),
    (r"classifier\.0\.project\.0", "pyramid/join/conv"),
    (r"classifier\.0\.project\.1", "pyramid/join/norm"),
  ]
  first = 1 if head == "deeplab" else 0
  for theirs, ours, i in (
    ("classifier", "head", first),
    ("aux_classifier", "auxiliary", 0),
  ):
    found += [
      (rf"{theirs}\.{i}", f"{ours}/enter/conv"),
      (rf"{theirs}\.{i + 1}", f"{ours}/enter/norm"),
      (rf"{theirs}\.4", f"{ours}/logits"),
    ]
  block = 0
  for stage, count in enumerate(COUNTS, 1):
    for i in range(count):
      old, new = rf"backbone\.layer{stage}\.{i}", f"backbone/blocks/{block}"
      block += 1
      found += [
        (rf"{old}\.downsample\.0", f"{new}/shortcut/conv"),
        (rf"{old}\.downsample\.1", f"{new}/shortcut/norm"),
      ]
      for j in range(3):
        found.append((rf"{old}\.conv{j + 1}", f"{new}/convs/{j}/conv"))
        found.append((rf"{old}\.bn{j + 1}", f"{new}/convs/{j}/norm"))
  return found


def trees_of(module, head):
  """(params, model_state) of a module of torchvision's."""
  trees, table = ({}, {}), renames(head)
  for name, tensor in module.state_dict().items():
    path, _, leaf = name.rpartition(".")
    for regex, replacement in table:
      if re.fullmatch(regex, path):
        path = re.sub(regex, replacement, path)
        break
    value = array(tensor)
    if leaf == "num_batches_tracked":
      continue
    if value.ndim == 4:
      value = value.transpose(2, 3, 1, 0)
    kernel = "kernel" if value.ndim == 4 else "scale"
    leaf = {"weight": kernel, "running_mean": "mean", "running_var": "var"}.get(
      leaf, leaf
    )
    tree = trees[leaf in ("mean", "var")]
    for key in path.split("/"):
      tree = tree.setdefault(key, {})
    tree[leaf] = value
  return trees


@pytest.mark.parity
@pytest.mark.parametrize("head", ["deeplab", "fcn"])
def test_dilated_networks_are_torchvisions(head):
  torch = pytest.importorskip("torch")
  models = peers.torchvision().models
  resnet = models.resnet.ResNet(
    models.resnet.Bottleneck,
    list(COUNTS),
    replace_stride_with_dilation=[False, True, True],
  )
  backbone = models._utils.IntermediateLayerGetter(
    resnet, {"layer4": "out", "layer3": "aux"}
  )
  first = models.segmentation.deeplabv3.DeepLabHead(2048, 5, (1, 2, 3))
  if head == "fcn":
    first = models.segmentation.fcn.FCNHead(2048, 5)
  second = models.segmentation.fcn.FCNHead(1024, 5)
  theirs = randomize(models.segmentation.FCN(backbone, first, second))
  with torch.no_grad():
    for name, parameter in theirs.named_parameters():
      if "bn3" in name:  # or the sums of the blocks would grow
        parameter.mul_(0.1)
  x = np.random.default_rng(0).normal(size=(1, 37, 52, 3)).astype("float32")
  with torch.no_grad():
    wanted = theirs(torch.tensor(x.transpose(0, 3, 1, 2)))
  params, state = trees_of(theirs, head)
  ours = deeplab(
    num_classes=5, head=head, blocks=COUNTS, rates=(1, 2, 3), auxiliary=True
  )
  found, _ = jax.jit(ours.apply, static_argnames="method")(
    params, state, x, method="both"
  )
  for mine, key in zip(found, ("out", "aux"), strict=True):
    want = wanted[key].numpy().transpose(0, 2, 3, 1)
    assert want.std() > 0.05
    scale = max(1, np.abs(want).max())
    np.testing.assert_allclose(mine / scale, want / scale, atol=1e-4)


@pytest.mark.parity
def test_a_unet_is_the_papers():
  torch = pytest.importorskip("torch")
  from torch import nn

  def double(inputs, outputs):
    layers = []
    for size in (inputs, outputs):
      layers += [
        nn.Conv2d(size, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
      ]
    return nn.Sequential(*layers)

  class UNet(nn.Module):
    def __init__(self):
      super().__init__()
      self.down = nn.ModuleList([double(3, 4), double(4, 8), double(8, 16)])
      self.up = nn.ModuleList(
        nn.ConvTranspose2d(n, n // 2, 2, stride=2) for n in (16, 8)
      )
      self.mix = nn.ModuleList(double(n, n // 2) for n in (16, 8))
      self.head = nn.Conv2d(4, 5, 1)

    def forward(self, x):
      skips = []
      for i, block in enumerate(self.down):
        x = block(nn.functional.max_pool2d(x, 2) if i else x)
        skips.append(x)
      skips.pop()
      for up, mix in zip(self.up, self.mix, strict=True):
        x = mix(torch.cat([skips.pop(), up(x)], 1))
      return self.head(x)

  theirs = randomize(UNet())

  def twice(module):
    params, state = {}, {}
    for i in (0, 1):
      conv, norm = module[3 * i], module[3 * i + 1]
      params[f"conv{i + 1}"] = {
        "kernel": array(conv.weight).transpose(2, 3, 1, 0)
      }
      params[f"norm{i + 1}"] = {
        "scale": array(norm.weight),
        "bias": array(norm.bias),
      }
      state[f"norm{i + 1}"] = {
        "mean": array(norm.running_mean),
        "var": array(norm.running_var),
      }
    return params, state

  params, state = {"down": {}, "up": {}}, {"down": {}, "up": {}}
  for i, block in enumerate(theirs.down):
    params["down"][str(i)], state["down"][str(i)] = twice(block)
  for i, (up, mix) in enumerate(zip(theirs.up, theirs.mix, strict=True)):
    mixed, running = twice(mix)
    kernel = array(up.weight)  # inputs, outputs, rows, columns
    kernel = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    params["up"][str(i)] = {
      "up": {"dense": {"kernel": kernel}, "bias": array(up.bias)},
      "mix": mixed,
    }
    state["up"][str(i)] = {"mix": running}
  params["head"] = {
    "kernel": array(theirs.head.weight).transpose(2, 3, 1, 0),
    "bias": array(theirs.head.bias),
  }
  x = np.random.default_rng(0).normal(size=(2, 11, 14, 3)).astype("float32")
  padded = np.pad(x, ((0, 0), (0, 1), (0, 2), (0, 0)))
  with torch.no_grad():
    wanted = theirs(torch.tensor(padded.transpose(0, 3, 1, 2))).numpy()
  ours = unet_segmentation(num_classes=5, channels=3, width=4, levels=2)
  found, _ = jax.jit(ours.apply)(params, state, jnp.asarray(x))
  wanted = wanted.transpose(0, 2, 3, 1)[:, :11, :14]
  assert wanted.std() > 0.05
  np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(
  ("stride", "sizes"), [(8, (12, 6, 6, 6)), (16, (12, 6, 3, 3))]
)
def test_the_output_stride_is_that_of_the_last_stages(stride, sizes):
  plain, dilated = (
    resnet(num_classes=3, depth=18, width=2, output_stride=each)
    for each in (None, stride)
  )
  shapes = jax.eval_shape(plain.init, jax.random.key(0))
  assert shapes == jax.eval_shape(dilated.init, jax.random.key(0))
  x = jax.ShapeDtypeStruct((1, 48, 48, 3), jnp.float32)
  found, _ = jax.eval_shape(
    lambda *args: dilated.apply(*args, method="stages"), *shapes, x
  )
  assert tuple(each.shape[1] for each in found) == sizes


def test_a_file_in_torchvisions_layout_is_the_backbone(tmp_path):
  safetensors = pytest.importorskip("safetensors.numpy")
  rng, tensors = np.random.default_rng(0), {}

  def layer(conv, norm, *shape):
    tensors[f"{conv}.weight"] = rng.normal(size=shape).astype("float32")
    for leaf in ("weight", "bias", "running_mean", "running_var"):
      tensors[f"{norm}.{leaf}"] = rng.uniform(1, 2, shape[:1]).astype("float32")

  layer("conv1", "bn1", 4, 3, 7, 7)
  inputs = 4
  for stage, width in enumerate((4, 8, 16, 32), 1):
    for i in range(2):
      name = f"layer{stage}.{i}"
      layer(f"{name}.conv1", f"{name}.bn1", width, inputs, 3, 3)
      layer(f"{name}.conv2", f"{name}.bn2", width, width, 3, 3)
      if inputs != width:
        down = f"{name}.downsample"
        layer(f"{down}.0", f"{down}.1", width, inputs, 1, 1)
      inputs = width
  tensors["fc.weight"] = np.zeros((7, 32), "float32")
  tensors["fc.bias"] = np.zeros(7, "float32")
  path = tmp_path / "resnet18.safetensors"
  safetensors.save_file(tensors, path)
  sizes = dict(num_classes=5, depth=18, width=4, features=4)
  model, said = deeplab(**sizes), []
  start = initialization.read(
    initialization.Settings(str(path), map=[("^", "backbone/")]),
    model,
    {"name": "deeplab", **sizes},
    build.origin,
    said.append,
  )
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  for found, own in zip(start, shapes, strict=True):
    own = parameter_rules.flat(own)
    assert set(found) == {k for k in own if k.startswith("backbone/")}
  np.testing.assert_array_equal(
    start.params["backbone/blocks/3/convs/1/conv/kernel"],
    tensors["layer2.1.conv2.weight"].transpose(2, 3, 1, 0),
  )
  np.testing.assert_array_equal(
    start.model_state["backbone/blocks/6/shortcut/norm/var"],
    tensors["layer4.0.downsample.1.running_var"],
  )
