"""Faster R-CNN with a ResNet beside torchvision's, at random weights."""

import jax
import numpy as np
import peers
import pytest
from torch_arrays import array, randomize

from models.vision.faster_rcnn import faster_rcnn
from train import build, initialization, types
from train.optimization import parameter_rules
from train.tasks.two_stage_detection import two_stage_detection

pytestmark = pytest.mark.parity
SIZES = ((8,), (16,), (32,), (64,), (96,))
RATIOS = (0.5, 1.0, 2.0)


def detector(body):
  """torchvision's, on a ResNet-18 of which `body` has the weights."""
  torchvision = peers.torchvision()
  from torchvision.models.detection import faster_rcnn as theirs
  from torchvision.models.detection.rpn import AnchorGenerator
  from torchvision.ops import feature_pyramid_network as pyramid

  frozen = torchvision.ops.FrozenBatchNorm2d
  network = torchvision.models.resnet18(norm_layer=frozen, num_classes=2)
  network.load_state_dict(body.state_dict(), strict=False)
  levels = {f"layer{i + 1}": str(i) for i in range(4)}
  backbone = torchvision.models.detection.backbone_utils.BackboneWithFPN(
    network, levels, [64, 128, 256, 512], 8, pyramid.LastLevelMaxPool()
  )
  made = theirs.FasterRCNN(
    backbone,
    rpn_anchor_generator=AnchorGenerator(SIZES, (RATIOS,) * 5),
    box_head=theirs.TwoMLPHead(8 * 7**2, 16),
    box_predictor=theirs.FastRCNNPredictor(16, 4),
    min_size=64,
    max_size=128,
    image_mean=[0, 0, 0],
    image_std=[1, 1, 1],
    rpn_pre_nms_top_n_test=20,
    rpn_post_nms_top_n_test=10,
    box_score_thresh=0.0,
    box_detections_per_img=8,
  )
  for part in (made.rpn, made.roi_heads, backbone.fpn):
    randomize(part)
  # Features of size 1, so that no score is exactly 0 or 1.
  torch = pytest.importorskip("torch")
  with torch.no_grad():
    fine = backbone(torch.randn(1, 3, 64, 128))["0"]
    for parameter in backbone.fpn.layer_blocks.parameters():
      parameter.div_(fine.std())
  return made.eval()


def placed(module):
  """Our parameters of the pyramid and the heads."""

  def leaves(part, kernel):
    return {"kernel": kernel, "bias": array(part.bias)}

  def conv(part):
    return leaves(part, array(part.weight).transpose(2, 3, 1, 0))

  def dense(part):
    return leaves(part, array(part.weight).T)

  fpn, heads = module.backbone.fpn, module.roi_heads
  found = {
    f"pyramid/{name}": {str(i): conv(block[0]) for i, block in enumerate(part)}
    for name, part in (("lateral", fpn.inner_blocks), ("out", fpn.layer_blocks))
  }
  head = module.rpn.head
  found["shared"] = conv(head.conv[0][0])
  found["objectness"] = conv(head.cls_logits)
  found["shift"] = conv(head.bbox_pred)
  # The channels come last here, and no object has no codes.
  fc6 = array(heads.box_head.fc6.weight).reshape(16, 8, 7, 7)
  kernel = fc6.transpose(2, 3, 1, 0).reshape(-1, 16)
  found["first"] = leaves(heads.box_head.fc6, kernel)
  found["second"] = dense(heads.box_head.fc7)
  found["classes"] = dense(heads.box_predictor.cls_score)
  codes = dense(heads.box_predictor.bbox_pred)
  found["codes"] = {key: value[..., 4:] for key, value in codes.items()}
  return parameter_rules.flat(found)


def test_a_resnet_with_a_pyramid_is_torchvisions(tmp_path):
  torch = pytest.importorskip("torch")
  safetensors = pytest.importorskip("safetensors.torch")
  body = randomize(peers.torchvision().models.resnet18(num_classes=2))
  path = tmp_path / "resnet18.safetensors"
  safetensors.save_file(body.state_dict(), path)
  theirs = detector(body)
  section = dict(
    num_classes=3, channels=3, backbone="resnet", depth=18, width=64,
    norm="frozen", strides=(4, 8, 16, 32), coarser=True, sizes=SIZES,
    ratios=RATIOS, features=8, hidden=16,
  )  # fmt: skip
  model = faster_rcnn(**section)
  # The backbone is that of the file, as config.init_from begins with it.
  start = initialization.read(
    initialization.Settings(str(path), map=[("^", "backbone/")]),
    model,
    {"name": "faster_rcnn", **section},
    build.origin,
    lambda line: None,
  )
  given = {**start.params, **placed(theirs)}
  params, state = jax.eval_shape(model.init, jax.random.key(0))
  assert given.keys() >= parameter_rules.flat(params).keys()
  assert start.model_state.keys() == parameter_rules.flat(state).keys()
  params, state = (
    jax.tree.map(arrays.__getitem__, parameter_rules.paths(tree))
    for arrays, tree in ((given, params), (start.model_state, state))
  )
  x = np.random.default_rng(1).normal(size=(2, 64, 128, 3)).astype("float32")
  task = two_stage_detection(model, detections=8, proposals=10, candidates=20)

  @jax.jit
  def ours(params, state, x):
    first, _ = model.apply(params, state, x)
    batch = {"image": x}
    variables = types.Variables(params, state)
    return first, task.predict["detections"](variables, batch, None)

  first, found = ours(params, state, x)
  images = torch.tensor(x.transpose(0, 3, 1, 2))
  with torch.no_grad():
    levels = list(theirs.backbone(images).values())
    scores, _ = theirs.rpn.head(levels)
    wanted = theirs(list(images))
  for level, other in zip(first["levels"], levels, strict=True):
    other = other.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(level, other, atol=1e-4 * np.abs(other).max())
  scores = [s.permute(0, 2, 3, 1).reshape(2, -1).numpy() for s in scores]
  scores = np.concatenate(scores, 1)
  most = np.abs(scores).max()
  np.testing.assert_allclose(first["objectness"], scores, atol=1e-4 * most)
  assert all(len(each["scores"]) == 8 for each in wanted)
  for i, each in enumerate(wanted):
    each = {key: value.numpy() for key, value in each.items()}
    np.testing.assert_allclose(found["scores"][i], each["scores"], atol=1e-4)
    np.testing.assert_array_equal(found["classes"][i] + 1, each["labels"])
    np.testing.assert_allclose(found["boxes"][i], each["boxes"], atol=1e-2)
