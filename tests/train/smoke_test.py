"""Every config's :smoke trains, saves, evaluates; every full size fits."""

import json
import math

import experiments
import jax
import pytest
from tiers import slow_but

from train import build, loop, sharding, trained

# Published counts: Radford et al. 2019 with nanoGPT's padded vocabulary and no
# biases; He et al. 2016; Steiner et al. 2022 (S/16, global average pooling:
# 22,050,664 less the class token and its position; L/16); the model cards of
# Llama 3.1 and 3.2; Mixtral's and T5 small's weights. GPT-2 XL has
# 1,557,611,200, of which 48 layers x 17,600 + 1,600 are biases, and 50,257
# tokens.
PARAMETERS = {
  # Keras' count of the same layers.
  "cifar10_conv": 5_616_266,
  "gpt2_124m": 124_373_760,
  "gpt2_1558m": 1_557_611_200 - 48 * 17_600 - 1_600 + 47 * 1600,
  "llama_1b": 1_235_814_400,
  "llama_8b": 8_030_261_248,
  "llama_70b": 70_553_706_496,
  "moe_8x7b": 46_702_792_704,
  "t5_small": 60_506_624,
  "vit_l16_imagenet": 304_326_632,
  # The published 675,129,632 hold 16 x 16 fixed positions of 1152 numbers, and
  # 2 x 2 x 4 learned variances of a patch with their biases.
  "dit_xl2_imagenet": 675_129_632 - 256 * 1152 - 16 * 1153,
  # Generator and discriminator; tests/models/vision/stylegan2_test.py.
  "stylegan2_ffhq256": 30_034_338 + 28_864_129,
  "resnet50_imagenet": 25_557_032,
  # YOLOv8's summary, less the 16 constants that its bins are multiplied by.
  "yolo_l_coco": 43_691_520 - 16,
  # torchvision's has 90 classes, and codes of boxes without an object.
  "faster_rcnn_r50_coco": 41_755_286 - 4 * 1025 - 10 * 5 * 1025,
  # torchvision's deeplabv3_resnet101, whose two heads have 21 classes.
  "deeplab_cityscapes": 60_996_202 - 2 * 2 * 257,
  "vit_imagenet": 22_050_664 - 2 * 384,
}
# The shapes of the real data, height and width, channels and classes.
IMAGES = {
  "alexnet_cifar10": (32, 3, 10),
  "cifar10_conv": (32, 3, 10),
  "conv_fashion_mnist": (28, 1, 10),
  "ddpm_fashion_mnist": (28, 1, 10),
  "dit_fashion_mnist": (28, 1, 10),
  "embed_fashion_mnist": (28, 1, 5),
  "gan_fashion_mnist": (28, 1, 10),
  "stylegan2_fashion_mnist": (28, 1, 10),
  "latent_fashion_mnist": (28, 1, 10),
  "dit_xl2_imagenet": (256, 3, 1000),
  "stylegan2_ffhq256": (256, 3, 10),
  "resnet_cifar10": (32, 3, 10),
  "resnet50_imagenet": (224, 3, 1000),
  "text_fashion_mnist": (28, 1, 10),
  "vae_fashion_mnist": (28, 1, 10),
  "vgg_cifar10": (32, 3, 10),
  "vit_cifar10": (32, 3, 10),
  "vit_imagenet": (224, 3, 1000),
  "wide_resnet_cifar10": (32, 3, 10),
  "vit_l16_imagenet": (224, 3, 1000),
  "vqvae_fashion_mnist": (28, 1, 10),
}
# Of the same sizes as the real pictures; the ops remain.
PICTURES = {
  "boxes_bccd": "fake:boxes?n=8&size=256",
  "dncnn_bsd": "fake:image?n=8&size=64&channels=1&dtype=uint8",
  "detr_bccd": "fake:boxes?n=8&size=256",
  **dict.fromkeys(
    ("faster_rcnn_r50_coco", "yolo_l_coco"),
    "fake:boxes?n=8&size=256&classes=80&instances=1",
  ),
  **dict.fromkeys(
    ("dino_cifar10", "mae_cifar10", "simclr_cifar10"),
    "fake:image?n=8&size=32&channels=3&dtype=uint8",
  ),
  "faster_rcnn_bccd": "fake:boxes?n=8&size=256",
  "yolo_bccd": "fake:boxes?n=8&size=256",
  "deeplab_camvid": "fake:masks?n=8&size=240&classes=11",
  "deeplab_cityscapes": "fake:masks?n=8&size=800&classes=19",
  "fcn_camvid": "fake:masks?n=8&size=240&classes=11",
  "mask_rcnn_nuclei": "fake:boxes?n=8&size=256&classes=1&instances=1",
  "unet_camvid": "fake:masks?n=8&size=240&classes=11",
}
# Of kinds of rows.
BY_SMOKE = ("bag_of_ngrams", "columns", "triples")
FAKES = {
  "conversations": "fake:conversations",
  "preferences": "fake:preferences",
  "questions": "fake:questions",
  "tagged": "fake:tagged",
  "translation": "fake:pairs?documents=200&length=600",
}


# They take longest; others have most of their parts.
LARGE = ("bert_base", "t5_small", "summarize_cnn_dm", "vit_imagenet")


def representatives() -> set[str]:
  """The configs that the quick tier trains.

  One for each learner. The others differ in tasks, evaluators and models, which
  have tests of their own, in sizes and in data; the slow tier trains them.
  """
  found = {}
  for name in sorted(experiments.NAMES, key=lambda name: name in LARGE):
    found.setdefault(experiments.config_of(name).learner.name, name)
  return {*found.values(), "lm_shakespeare"}


REPRESENTATIVES = representatives()


@pytest.mark.parametrize("name", slow_but(REPRESENTATIVES, experiments.NAMES))
def test_smoke(name, tmp_path):
  config = experiments.config_of(name, "smoke")
  workdir = str(tmp_path / "run")
  said = []
  run = build.run(config, workdir, say=said.append)
  reports = list(loop.fit(run))

  scalars = {k: v for report in reports for k, v in report.scalars.items()}
  assert all(math.isfinite(v) for v in scalars.values())
  assert reports[-1].step == config.total_steps
  assert any(key.startswith("train/") for key in scalars)

  # What is on disk is what was reported.
  rows = [
    json.loads(line)
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  ]
  assert rows == [{"step": r.step, **r.scalars} for r in reports]

  # A workdir alone gives the same figures again.
  found = trained.load(workdir)
  again = build.evaluators(found, workdir, say=said.append)
  for key, evaluator in again.items():
    for metric, value in evaluator(found.variables, found.step).items():
      assert value == scalars[f"{key}/{metric}"], f"{key}/{metric}"


@pytest.mark.parametrize("name", slow_but(PARAMETERS, experiments.NAMES))
def test_full_size_by_shapes_alone(name):
  """The step at full size, traced on fake data; nothing is allocated."""
  config = experiments.config_of(name, "")
  if name in IMAGES:
    size, channels, classes = IMAGES[name]
    config.data.source = (
      f"fake:image?n=8&size={size}&channels={channels}&classes={classes}"
    )
    kept = [op for op in config.data.ops.split("|") if op[:7] == "caption"]
    config.data.update(split="all", ops="|".join(kept))
  if name in PICTURES:
    config.data.update(source=PICTURES[name], split="all")
  for key in {"mixture", "temperature"} & set(config.data):
    del config.data[key]
  if "tokenizer" in config.data:
    kind = config.data.get("rows", {}).get("name")
    fake = FAKES.get(kind, "fake:text?documents=20&length=20000")
    words = config.data.tokenizer.startswith("word?")
    config.data.update(
      source=fake, split="train", tokenizer="word" if words else "byte"
    )
    if kind == "translation":
      config.data.rows.update(source_key="source", target_key="target")
    if kind == "labeled":
      fake = f"fake:labeled_text?classes={len(config.data.rows.labels)}"
      config.data.source = fake
  made = config.data.get("rows", {}).get("name") in BY_SMOKE
  if made or config.data.get("source", "").startswith("audio:"):
    config.data = experiments.config_of(name, "smoke").data
  if config.batch_size != "all":
    config.batch_size = 8
  config.learner.update(
    {"microbatches": 1} if "microbatches" in config.learner else {}
  )
  config.evals, config.early_stopping, config.checkpoint = {}, {}, {}
  run = build.run(config, None)
  state = run.abstract_state
  if name in PARAMETERS:
    assert sharding.count(state.variables.params) == PARAMETERS[name]
  batch = next(run.batches(0))
  after, metrics = jax.eval_shape(run.learner.step, state, batch, run.rng)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  assert any(metric.endswith("loss") for metric in metrics)
