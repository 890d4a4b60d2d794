"""Detectors: their geometry by hand and by torchvision."""

import types as types_lib

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
from torch_arrays import array, randomize

from models import Model
from models.layers.roi_align import level_of, roi_align
from models.vision import detr as detr_lib
from models.vision.detr import detr
from models.vision.faster_rcnn import anchors, faster_rcnn
from models.vision.mask_rcnn import mask_rcnn
from models.vision.yolo import STRIDES, Yolo, yolo
from train import types
from train.evaluators import average_precision
from train.objectives import box_assignment, region_masks
from train.objectives import boxes as boxes_lib
from train.objectives.region_proposals import Sampled
from train.tasks.one_stage_detection import one_stage_detection
from train.tasks.set_detection import set_detection
from train.tasks.two_stage_detection import two_stage_detection

SIZES = dict(num_classes=3, channels=1, width=2)


def zeros(model):
  """(params, state) of zeros; nothing is compiled."""
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def test_the_cells_of_yolo_by_hand():
  logs = [float(np.log(np.expm1(x))) for x in (0.5, 1, 2, 3)]
  model = yolo(**SIZES, head=4)
  found = model.apply(
    *zeros(model),
    1,
    jnp.zeros((1, 2, 3, 3)),
    jnp.broadcast_to(jnp.asarray(logs), (1, 2, 3, 4)),
    method="decoded",
  )[0]
  assert found["strides"].tolist() == [16] * 6
  assert found["points"].tolist() == [
    [x, y] for y in (8, 24) for x in (8, 24, 40)
  ]
  # Half a cell to the left of (40, 24), one up, two to the right, three down.
  np.testing.assert_allclose(found["boxes"][0, 5], [32, 8, 72, 72], rtol=1e-5)
  model = yolo(**SIZES, head=4, bins=3)
  nats = np.log([0.5, 0.25, 0.25])  # the mean is 0.75 of a cell
  found = model.apply(
    *zeros(model),
    0,
    jnp.zeros((1, 1, 1, 3)),
    jnp.tile(jnp.asarray(nats, jnp.float32), 4)[None, None, None],
    method="decoded",
  )[0]
  np.testing.assert_allclose(found["boxes"][0, 0], [-2, -2, 10, 10], atol=1e-5)
  assert found["bins"].shape == (1, 1, 4, 3)


def test_the_anchors_of_yolo_by_hand():
  own = [[[10, 20], [30, 8]], [[40, 40], [50, 60]], [[90, 90], [120, 60]]]
  model = yolo(**SIZES, head=4, anchors=own)
  sides = jnp.asarray([0, 0, 0, 0, 0, 0, np.log(2), 0], jnp.float32)
  found = model.apply(
    *zeros(model),
    0,
    jnp.zeros((1, 1, 2, 6)),
    jnp.broadcast_to(sides, (1, 1, 2, 8)),
    method="decoded",
  )[0]
  # The anchors of the second cell, the second of which is doubled in width.
  np.testing.assert_allclose(found["boxes"][0, 2], [7, -6, 17, 14], atol=1e-5)
  np.testing.assert_allclose(found["boxes"][0, 3], [-18, 0, 42, 8], atol=1e-4)
  assert found["logits"].shape == (1, 4, 3)
  with pytest.raises(ValueError, match="three levels"):
    yolo(**SIZES, anchors=own[:2])


TASKS = {
  "yolo": lambda: one_stage_detection(yolo(**SIZES, head=4, bins=4)),
  "faster_rcnn": lambda: two_stage_detection(
    faster_rcnn(**SIZES, features=4, hidden=8, sizes=((8,), (16,), (24,))),
    detections=6,
    proposals=8,
    candidates=8,
    anchors=16,
    regions=8,
  ),
  "detr": lambda: set_detection(
    detr(**SIZES, queries=5, layers=2, dim=8, heads=2, hidden=8), detections=5
  ),
}


def batch_of(boxes, real):
  """Two images of 32 x 48 pixels with two boxes each."""
  rng = np.random.default_rng(0)
  return {
    "image": jnp.asarray(rng.normal(size=(2, 32, 48, 1)), jnp.float32),
    "boxes": jnp.asarray(boxes, jnp.float32),
    "boxes_mask": jnp.asarray(real, jnp.float32),
    "classes": jnp.asarray([[1, 0], [2, 0]], jnp.int32),
    "crowd": jnp.zeros((2, 2)),
    "mask": jnp.ones(2),
  }


BOXES = [[[4, 4, 20, 20], [0, 0, 0, 0]], [[9, 0, 40, 30], [9, 0, 40, 30]]]


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_losses_without_objects_and_predictions_one_by_one(name):
  batch = batch_of(BOXES, [[1, 0], [1, 1]])
  task = TASKS[name]()
  variables = jax.jit(task.init)(jax.random.key(1), batch)

  @jax.jit
  def gradient(params, batch):
    def loss(params):
      at = types.Context(jax.random.key(0), jnp.int32(0), train=True)
      given = variables._replace(params=params)
      mean, aux = task.losses["loss"](given, batch, at)
      return mean.total, (mean, aux.metrics)

    return jax.value_and_grad(loss, has_aux=True)(params)

  crowded = batch | {"crowd": jnp.ones((2, 2))}
  empty = batch | {"boxes_mask": jnp.zeros((2, 2))}
  values = []
  for each in (batch, crowded, empty):
    (_, (mean, metrics)), grads = gradient(variables.params, each)
    for leaf in jax.tree.leaves((mean, metrics, grads)):
      assert np.isfinite(leaf).all()
    values.append(float(mean.value()))
  full, crowd, none = values
  # A crowd is no object, and in one stage also no negative.
  assert crowd <= none < full
  assert name != "yolo" or crowd < none

  predict = jax.jit(task.predict["detections"])
  both = predict(variables, batch, jax.random.key(0))
  one = predict(
    variables, jax.tree.map(lambda x: x[1:], batch), jax.random.key(0)
  )
  for key, value in one.items():
    np.testing.assert_allclose(value[0], both[key][1], rtol=1e-4, atol=1e-4)
  assert both["scores"].dtype == jnp.float32 and both["scores"].max() > 0


def test_the_right_output_of_one_stage_gives_the_boxes_back():
  """The outputs are parameters of a model without layers."""
  points = boxes_lib.grid(4, 6, 8)
  truth = np.asarray(BOXES[1][0], np.float32)
  own = np.flatnonzero(
    (boxes_lib.to_sides(points, jnp.broadcast_to(truth, (24, 4))) > 0).all(-1)
  )
  boxes = np.tile(np.float32([0, 0, 1, 1]), (2, 24, 1))
  boxes[1, own] = truth
  logits = np.full((2, 24, 3), -20, np.float32)
  logits[1, own, 2] = 20
  params = {"logits": jnp.asarray(logits), "boxes": jnp.asarray(boxes)}

  def apply(params, state, image, **_):
    return params | {"points": points, "strides": jnp.full(24, 8.0)}, state

  task = one_stage_detection(Model(None, apply), detections=3, top=24)
  variables = types.Variables(params, {})
  at = types.Context(jax.random.key(0), jnp.int32(0), train=True)
  batch = batch_of(BOXES, [[0, 0], [1, 0]])

  @jax.jit
  def both(batch):
    mean, aux = task.losses["loss"](variables, batch, at)
    found = task.predict["detections"](variables, batch, at.rng)
    return mean, aux.metrics["iou"], found

  mean, iou, found = both(batch)
  # One image without objects counts as 1, the other has as many as cells.
  assert mean.weight == 1 + len(own) and mean.value() < 1e-4
  assert iou.weight == pytest.approx(len(own), rel=1e-5)
  assert iou.value() == pytest.approx(1, rel=1e-5)
  np.testing.assert_allclose(found["boxes"][1, 0], truth)
  assert found["classes"][1, 0] == 2 and not found["scores"][0, 0] > 1e-6
  # Padding of the batch is no image.
  mean, _, _ = both(batch | {"mask": jnp.asarray([1.0, 0.0])})
  assert mean.weight == 1


@pytest.mark.parity
@pytest.mark.parametrize("aligned", [False, True])
def test_regions_are_torchvisions(aligned):
  torch = pytest.importorskip("torch")
  ops = peers.torchvision().ops
  rng = np.random.default_rng(0)
  levels = [
    rng.normal(size=(2, 64 // s, 96 // s, 3)).astype(np.float32)
    for s in (8, 16)
  ]
  # Also regions beyond the picture, and one without area.
  low = rng.uniform(-20, 70, (2, 9, 2))
  boxes = np.concatenate([low, low + rng.uniform(0, 60, (2, 9, 2))], -1)
  boxes[0, 0] = 5
  boxes = boxes.astype(np.float32)
  of = rng.integers(0, 2, (2, 9))
  found = roi_align(
    [jnp.asarray(x) for x in levels],
    (8, 16),
    jnp.asarray(boxes),
    jnp.asarray(of),
    size=3,
    aligned=aligned,
  )
  for i, stride in enumerate((8, 16)):
    wanted = ops.roi_align(
      torch.tensor(levels[i]).permute(0, 3, 1, 2),
      [torch.tensor(each) for each in boxes],
      3,
      1 / stride,
      2,
      aligned,
    ).permute(0, 2, 3, 1)
    own = of.reshape(-1) == i
    np.testing.assert_allclose(
      found.reshape(18, 3, 3, 3)[own], wanted.numpy()[own], atol=1e-4
    )
  mapper = ops.poolers.LevelMapper(3, 5)
  wide = np.concatenate([low, low + rng.uniform(1, 900, (2, 9, 2))], -1)
  wanted = mapper([torch.tensor(wide[0]), torch.tensor(wide[1])])
  levels_found = level_of(jnp.asarray(wide, jnp.float32), (8, 16, 32))
  assert levels_found.reshape(-1).tolist() == wanted.tolist()


@pytest.mark.parity
def test_anchors_are_torchvisions():
  torch = pytest.importorskip("torch")
  peers.torchvision()
  from torchvision.models.detection import _utils as det_utils
  from torchvision.models.detection import anchor_utils as utils

  sizes, ratios = ((20, 36), (48, 64)), (0.5, 1.0, 2.0)
  make = utils.AnchorGenerator(sizes, (ratios, ratios))
  shapes = ((8, 12), (4, 6))
  found = [anchors(*shapes[i], (8, 16)[i], sizes[i], ratios) for i in range(2)]
  make.set_cell_anchors(torch.float32, torch.device("cpu"))
  wanted = make.grid_anchors(shapes, [[torch.tensor(s)] * 2 for s in (8, 16)])
  for ours, theirs in zip(found, wanted, strict=True):
    np.testing.assert_array_equal(ours, theirs)
  # FCOS decodes distances to sides, in strides, from the centres of cells.
  points = boxes_lib.grid(3, 4, 8)
  sides = np.random.default_rng(0).uniform(0, 4, (12, 4)).astype(np.float32)
  cells = boxes_lib.from_sides(points, jnp.full((12, 4), 4.0))
  coder = det_utils.BoxLinearCoder(normalize_by_size=True)
  theirs = coder.decode(torch.tensor(sides), torch.tensor(np.asarray(cells)))
  found = boxes_lib.from_sides(points, jnp.asarray(sides) * 8)
  np.testing.assert_allclose(found, theirs, atol=1e-4)


@pytest.mark.parity
def test_boxes_from_points_are_those_of_fcos():
  torch = pytest.importorskip("torch")
  peers.torchvision()
  from torchvision.models.detection._utils import BoxLinearCoder
  from torchvision.models.detection.anchor_utils import AnchorGenerator
  from torchvision.models.detection.image_list import ImageList

  rng, (H, W) = np.random.default_rng(0), (64, 96)
  # A square of the size of the stride for each cell, as torchvision's FCOS has.
  make = AnchorGenerator(tuple((s,) for s in STRIDES), ((1.0,),) * len(STRIDES))
  levels = [torch.zeros(1, 1, H // s, W // s) for s in STRIDES]
  images = ImageList(torch.zeros(1, 3, H, W), [(H, W)])
  (anchors_A4,) = make(images, levels)
  coder = BoxLinearCoder(normalize_by_size=True)
  head = types_lib.SimpleNamespace(anchors=(), bins=0, num_classes=3)
  raw = [rng.normal(size=(2, *x.shape[2:], 4), scale=2) for x in levels]
  found = [
    Yolo.decoded(head, i, jnp.zeros((2, *x.shape[1:3], 3)), jnp.asarray(x))
    for i, x in enumerate(raw)
  ]
  points, strides = (
    jnp.concatenate([each[name] for each in found])
    for name in ("points", "strides")
  )
  # torchvision's centres are the corners of cells, ours lie half a cell on.
  corners = anchors_A4.numpy().reshape(-1, 2, 2).mean(1)
  np.testing.assert_allclose(points - strides[:, None] / 2, corners, atol=1e-4)
  anchors_A4 += torch.tensor(np.array(strides))[:, None] / 2
  sides = np.concatenate([x.reshape(2, -1, 4) for x in raw], 1)
  sides = torch.nn.functional.softplus(torch.tensor(sides, dtype=torch.float32))
  boxes = coder.decode(sides, anchors_A4[None])
  got = jnp.concatenate([each["boxes"] for each in found], 1)
  np.testing.assert_allclose(got, boxes, atol=1e-4)
  # And back; a point is within a box if no distance is below 0.
  low = rng.uniform(0, 60, (5, 2))
  truth = np.concatenate([low, low + rng.uniform(4, 40, (5, 2))], 1)
  truth = truth.astype(np.float32)
  codes = coder.encode(anchors_A4[None], torch.tensor(truth)[:, None]).numpy()
  pairs = jnp.broadcast_to(points[None], (5, *points.shape))
  own = boxes_lib.to_sides(pairs, jnp.broadcast_to(truth[:, None], codes.shape))
  np.testing.assert_allclose(own / strides[None, :, None], codes, atol=1e-4)
  covered = box_assignment.covered(
    points, jnp.asarray(truth)[None], jnp.ones((1, 5))
  )
  np.testing.assert_array_equal(covered[0], (codes.min(-1) > 0).any(0))
  assert 0 < covered.mean() < 1


@pytest.mark.parity
def test_detr_is_transformers():
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  from transformers.models.detr import modeling_detr as theirs

  config = transformers.DetrConfig(
    d_model=16,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    auxiliary_loss=False,
    use_timm_backbone=False,
    backbone_config=transformers.ResNetConfig(),
    use_pretrained_backbone=False,
  )
  encoder = randomize(theirs.DetrEncoder(config))
  decoder = randomize(theirs.DetrDecoder(config), 1)

  def layer(module):
    def dense(linear):
      return {"kernel": array(linear.weight).T, "bias": array(linear.bias)}

    def norm(module):
      return {"scale": array(module.weight), "bias": array(module.bias)}

    def attention(module):
      names = ("query", "key", "value", "out")
      return {n: dense(getattr(module, f"{n[0]}_proj")) for n in names}

    found = {
      "attention": attention(module.self_attn),
      "attention_norm": norm(module.self_attn_layer_norm),
      "feed_forward": {
        "up": dense(module.mlp.fc1),
        "down": dense(module.mlp.fc2),
      },
      "feed_forward_norm": norm(module.final_layer_norm),
    }
    if hasattr(module, "encoder_attn"):
      found["cross"] = attention(module.encoder_attn)
      found["cross_norm"] = norm(module.encoder_attn_layer_norm)
    return found

  rng = np.random.default_rng(0)
  image = rng.normal(size=(2, 3, 5, 16)).astype(np.float32)
  queries = rng.normal(size=(7, 16)).astype(np.float32)
  ours = detr(**SIZES, queries=7, layers=2, dim=16, heads=4, hidden=24)
  params, state = zeros(ours)
  for name, module in (("encoder", encoder), ("decoder", decoder)):
    params[name] = {str(i): layer(m) for i, m in enumerate(module.layers)}
  params["queries"] = jnp.asarray(queries)
  last = decoder.layernorm
  params["norm"] = {"scale": array(last.weight), "bias": array(last.bias)}
  found, _ = jax.jit(lambda *x: ours.apply(*x, method="decoded"))(
    params, state, jnp.asarray(image)
  )

  sines = theirs.DetrSinePositionEmbedding(8, normalize=True)
  with torch.no_grad():
    x = torch.tensor(image).reshape(2, 15, 16)
    at = sines((2, 16, 3, 5), "cpu", torch.float32)
    at = at.flatten(2).transpose(1, 2)
    np.testing.assert_allclose(
      detr_lib.places(3, 5, 16), at[0].numpy(), atol=1e-5
    )
    memory = encoder(x, spatial_position_embeddings=at).last_hidden_state
    wanted = decoder(
      inputs_embeds=torch.zeros(2, 7, 16),
      encoder_hidden_states=memory,
      spatial_position_embeddings=at,
      object_queries_position_embeddings=torch.tensor(queries).repeat(2, 1, 1),
    ).last_hidden_state
  np.testing.assert_allclose(found[-1], wanted, atol=1e-4)


def mask_model():
  return mask_rcnn(
    **(SIZES | {"channels": 3}),
    features=4,
    hidden=8,
    mask_features=4,
    mask_convs=2,
    strides=(4, 8, 16),
    sizes=((8,), (16,), (24,)),
  )


def test_the_masks_of_regions_by_hand():
  # Two objects; the region covers a half of the second one.
  instances = np.zeros((1, 2, 16, 16), np.uint8)
  instances[0, 0, :8, :8] = 1
  instances[0, 1, 4:12, 4:12] = 1
  chosen = Sampled(
    jnp.asarray([[[0, 4, 8, 12], [0, 0, 8, 8], *[[0, 0, 4, 4]] * 6]], float),
    jnp.asarray([[3, 0, *[0] * 6]]),
    jnp.asarray([[1, 0, *[0] * 6]]),
    jnp.ones((1, 8)),
  )
  few = region_masks.with_object(chosen)
  assert few.kind.tolist() == [[3, 0]]
  found = region_masks.targets(jnp.asarray(instances), few, 4)
  # RoIAlign has the first pixel's centre at 0, hence the shares at the border.
  assert found.shape == (1, 2, 4, 4)
  np.testing.assert_array_equal(found[0, 0, :3, 3], [1, 1, 1])
  np.testing.assert_array_equal(found[0, 0, :3, 0], [0, 0, 0])
  logits = np.zeros((1, 2, 4, 4, 3), np.float32)
  logits[..., 2] = 50 * (2 * np.asarray(found) - 1)
  logits[0, 1] = 99  # without an object there is nothing to learn
  logits[..., :2] = 99  # nor are there other classes
  loss = region_masks.mask_loss(
    jnp.asarray(logits), jnp.asarray(instances), few
  )
  share = np.asarray(found[0, 0], float)
  z = 50 * (2 * share - 1)
  wanted = np.mean(np.logaddexp(0, z) - share * z)
  np.testing.assert_allclose(loss, [wanted], rtol=1e-5)
  none = few._replace(kind=jnp.zeros((1, 2), int))
  assert region_masks.mask_loss(logits, jnp.asarray(instances), none) == 0


def test_masks_are_learned_and_predicted():
  model = mask_model()
  params, state = zeros(model)
  task = two_stage_detection(
    model, masks=True, proposals=4, candidates=8, regions=8, detections=3
  )
  B, N = 2, 2
  batch = {
    "image": jax.ShapeDtypeStruct((B, 40, 48, 3), jnp.float32),
    "boxes": jax.ShapeDtypeStruct((B, N, 4), jnp.float32),
    "boxes_mask": jax.ShapeDtypeStruct((B, N), jnp.float32),
    "classes": jax.ShapeDtypeStruct((B, N), jnp.int32),
    "instances": jax.ShapeDtypeStruct((B, N, 40, 48), jnp.uint8),
    "mask": jax.ShapeDtypeStruct((B,), jnp.float32),
  }
  at = types.Context(jax.random.key(0), jnp.int32(0), train=True)

  def both(params, batch):
    variables = types.Variables(params, state)
    _, aux = task.losses["loss"](variables, batch, at)
    return aux.metrics, task.predict["detections"](variables, batch, at.rng)

  metrics, found = jax.eval_shape(both, params, batch)
  assert "mask_loss" in metrics and len(metrics) == 6
  assert found["masks"].shape == (B, 3, 28, 28)
  assert found["masks"].dtype == jnp.float32


@pytest.mark.parametrize("strides", [(8,), (8, 32), (4, 8, 16, 32, 64)])
def test_strides_that_do_not_follow_each_other_are_one_line(strides):
  sizes = [[8]] * len(strides)
  with pytest.raises(ValueError, match="not two or more of 4, 8, 16 and 32"):
    faster_rcnn(**SIZES, strides=strides, sizes=sizes)


@pytest.mark.parity
def test_masks_are_torchvisions():
  torch = pytest.importorskip("torch")
  detection = peers.torchvision().models.detection
  heads, roi_heads = detection.mask_rcnn, detection.roi_heads
  first = randomize(heads.MaskRCNNHeads(4, (4, 4), 1))
  last = randomize(heads.MaskRCNNPredictor(4, 4, 3), 1)
  model = mask_model()
  params, state = zeros(model)
  up = last.conv5_mask
  params["head"] = {
    "convs": {
      str(i): {
        "kernel": array(layer[0].weight).transpose(2, 3, 1, 0),
        "bias": array(layer[0].bias),
      }
      for i, layer in enumerate(first)
    },
    "up": {
      "dense": {
        "kernel": array(up.weight).transpose(0, 2, 3, 1).reshape(4, 16)
      },
      "bias": array(up.bias),
    },
    "logits": {
      "kernel": array(last.mask_fcn_logits.weight).transpose(2, 3, 1, 0),
      "bias": array(last.mask_fcn_logits.bias),
    },
  }
  rng = np.random.default_rng(0)
  level = rng.normal(size=(1, 24, 32, 4)).astype("float32")
  # RoIAlign of torchvision takes 2 x 2 samples of a mask's cell in a box with
  # sides of 28 to 56 pixels, which is what is always taken here.
  low = rng.uniform(0, 40, (3, 2))
  boxes = np.concatenate([low, low + rng.uniform(30, 55, (3, 2))], 1)
  boxes = boxes.astype("float32")
  levels = [level, *(jnp.zeros((1, 24 // s, 32 // s, 4)) for s in (2, 4))]
  found, _ = model.apply(
    params, state, levels, jnp.asarray(boxes)[None], method="masks"
  )
  with torch.no_grad():
    crops = peers.torchvision().ops.roi_align(
      torch.tensor(level.transpose(0, 3, 1, 2)),
      [torch.tensor(boxes)],
      14,
      1 / 4,
      2,
    )
    wanted = last(first(crops))
  np.testing.assert_allclose(
    found[0], wanted.numpy().transpose(0, 2, 3, 1), atol=1e-4
  )
  masks = (rng.random((3, 96, 128)) < 0.5).astype("uint8")
  kinds, owners = [2, 1, 2], [1, 0, 2]
  regions = Sampled(
    jnp.asarray(boxes)[None],
    jnp.asarray([kinds]) + 1,
    jnp.asarray([owners]),
    jnp.ones((1, 3)),
  )
  loss = region_masks.mask_loss(found, jnp.asarray(masks)[None], regions)
  theirs = roi_heads.maskrcnn_loss(
    wanted,
    [torch.tensor(boxes)],
    [torch.tensor(masks)],
    # The classes of the objects, in whose order the masks are.
    [torch.tensor([kinds[owners.index(i)] for i in range(3)])],
    [torch.tensor(owners)],
  )
  np.testing.assert_allclose(loss, [theirs.item()], atol=1e-4)


@pytest.mark.parity
def test_pasted_masks_are_torchvisions():
  torch = pytest.importorskip("torch")
  roi_heads = peers.torchvision().models.detection.roi_heads
  # Smooth masks in boxes that end at whole pixels, of other aspect ratios.
  y, x = np.mgrid[:28, :28] / 27 * 2 - 1
  masks = [
    1 / (1 + np.exp(9 * (np.hypot(y - dy, x - dx) - 0.8)))
    for dy, dx in ((0, 0), (0.3, 0), (0, -0.4))
  ]
  boxes = np.array([[10, 12, 66, 60], [40, 4, 110, 90], [5, 30, 45, 92]], float)
  theirs = roi_heads.paste_masks_in_image(
    torch.tensor(np.array(masks))[:, None].float(),
    torch.tensor(boxes).float(),
    (96, 128),
  )
  grid = average_precision._Grid(np.eye(2, 3), (96, 128))
  for mask, box, wanted in zip(masks, boxes, theirs.numpy(), strict=True):
    found, wanted = grid.within(mask, box), wanted[0] > 0.5
    # They round the box, and fade towards its sides, where ours does not.
    assert (found & wanted).sum() / (found | wanted).sum() > 0.95
