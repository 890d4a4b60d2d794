"""train.predict on pictures: every kind of prediction, and its files."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from common import leaf
from common.errors import UserError
from configs.vision import (
  conv_fashion_mnist,
  ddpm_fashion_mnist,
  detr_bccd,
  dncnn_bsd,
  faster_rcnn_bccd,
  fcn_camvid,
  gan_fashion_mnist,
  mask_rcnn_nuclei,
  stylegan2_fashion_mnist,
  vae_fashion_mnist,
  vqvae_fashion_mnist,
  yolo_bccd,
)
from train import assembly, trained, types
from train.prediction import Picture, Rendering
from train.prediction.parts import (
  drawing,
  drawn,
  folder,
  preparation,
  records,
)

NAMES = ("a.jpg", "b.png")
RNG = np.random.default_rng(0)
WITH_IMAGES = {
  "classes": conv_fashion_mnist,
  "yolo": yolo_bccd,
  "faster_rcnn": faster_rcnn_bccd,
  "detr": detr_bccd,
  "mask_rcnn": mask_rcnn_nuclei,
  "masks": fcn_camvid,
  "denoiser": dncnn_bsd,
  "vae": vae_fashion_mnist,
  "vqvae": vqvae_fashion_mnist,
}
DRAWING = {
  "vae": vae_fashion_mnist,
  "gan": gan_fashion_mnist,
  "stylegan2": stylegan2_fashion_mnist,
  "ddpm": ddpm_fashion_mnist,
}


def run_of(config, workdir, **predict):
  """A run with the parameters it begins with, or with given predictions."""
  config.mesh = dict(data=1, tensor=-1)
  parts = assembly.experiment(config, str(workdir))
  if predict:
    parts = parts._replace(task=types.Task(None, {}, predict))
    return trained.Trained(parts, types.Variables({}, {}), 0)
  batch = leaf.arrays(parts.data.spec, 1, jnp.zeros)
  variables = jax.jit(parts.task.init)(jax.random.key(0), batch)
  return trained.Trained(parts, variables, 0)


def predicted(found, source, batch=8, said=None, **options):
  wanted = preparation.Wanted(
    "--images",
    {
      "source": source,
      "split": "all",
      "on_bad_record": "skip",
      "max_bad_share": 1.0,
    },
    batch,
    options=options,
    files=True,
  )
  say = ([] if said is None else said).append
  return records.predicted(found, "unused", wanted, say)


def write(path, pixels, **options):
  path.parent.mkdir(exist_ok=True, parents=True)
  Image.fromarray(pixels).save(path, **options)
  return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """Pictures of several sizes and kinds, a turned one among them."""
  root = tmp_path_factory.mktemp("photos")
  noise = RNG.integers(0, 256, (60, 80, 3), np.uint8)
  turned = Image.Exif()
  turned[0x0112] = 6
  write(root / "a.jpg", noise, exif=turned)
  write(root / "b.png", noise[:40, :, 0])
  write(root / "c.png", np.dstack([noise[:50], noise[:50, :, :1]]))
  write(root / "d.png", noise[:50, :70, 0].astype(np.uint16) * 257)
  return root


def opened(record):
  """A record whose Pictures are arrays."""
  return {
    k: np.asarray(v.pixels(), int) if hasattr(v, "pixels") else v
    for k, v in record.items()
  }


def alike(first, second):
  """Whether two records are equal up to rounding."""
  assert first.keys() == second.keys()
  for key, value in first.items():
    other = second[key]
    if isinstance(value, np.ndarray):
      far = np.abs(value - other) > 1
      assert value.shape == other.shape and far.mean() < 0.02, key
    elif isinstance(value, list):
      assert len(value) == len(other), key
      for one, two in zip(value, other, strict=True):
        alike(one, two) if isinstance(one, dict) else None
        assert isinstance(one, dict) or one == pytest.approx(two, abs=0.02)
    else:
      assert value == pytest.approx(other, abs=2e-3), key


QUICK = ("denoiser",)


@pytest.mark.parametrize(
  "name",
  [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in WITH_IMAGES
  ],
)
def test_batch_1_equals_batch_8_and_files_are_written(name, photos, tmp_path):
  found = run_of(WITH_IMAGES[name].get_config("smoke"), tmp_path)
  source = f"images:{photos}/*"
  got = [
    [opened(each) for each in predicted(found, source, batch).records]
    for batch in (1, 8)
  ]
  for first, second in zip(*got, strict=True):
    alike(first, second)
  sizes = [(60, 80), (80, 40), (80, 50), (70, 50)]
  if "width" in got[0][0]:
    assert [(r["width"], r["height"]) for r in got[0]] == sizes
  made = predicted(found, source)
  count = folder.write(made.records, made.rendering, str(tmp_path / "out"))
  assert count == 4
  entries = json.loads((tmp_path / "out" / folder.NAME).read_text())
  assert {each["file_name"] for each in entries} <= {
    "a.jpg",
    "b.png",
    "c.png",
    "d.png",
  }
  pictures = [k for k, v in got[0][0].items() if isinstance(v, np.ndarray)]
  for key in pictures:
    with Image.open(tmp_path / "out" / f"a_{key}.png") as image:
      whole = image.size == (60, 80)
    assert whole or key == "reconstruction"


@pytest.mark.parametrize(
  "name",
  [
    "gan",
    *(pytest.param(n, marks=pytest.mark.slow) for n in DRAWING if n != "gan"),
  ],
)
def test_drawn_pictures_depend_on_their_place_alone(name, tmp_path):
  found = run_of(DRAWING[name].get_config("smoke"), tmp_path)
  got = [
    [
      opened(each)
      for each in drawn.drawn(
        found, drawn.Drawing(5, seed=3, batch=batch)
      ).records
    ]
    for batch in (1, 4)
  ]
  assert [each["record"] for each in got[0]] == [f"{i:05d}" for i in range(5)]
  for first, second in zip(*got, strict=True):
    alike(first, second)
  assert (got[0][0]["picture"] != got[0][1]["picture"]).any()
  assert got[0][0]["picture"].shape == (8, 8, 1)


def test_objects_are_in_pixels_of_the_upright_file(photos, tmp_path):
  """The input is 48 x 40; each picture is a letterbox in it."""
  config = yolo_bccd.get_config("smoke")
  config.evals.test.ops = (
    'letterbox((40, 48))|keep("image", "boxes", "classes")'
    '|pad(8, inkey="boxes")|pad(8, inkey="classes")|scale(-1, 1)'
  )
  box = [12.0, 10.0, 36.0, 30.0]

  def detections(variables, batch, rng):
    rows = batch["image"].shape[0]
    share = jnp.tile(jnp.linspace(0.0, 1.0, 8), (rows, 3, 8, 1))
    return {
      "boxes": jnp.tile(jnp.array([box, [0, 0, 1, 1], box]), (rows, 1, 1)),
      "scores": jnp.tile(jnp.array([0.5, 0.9, 0.01]), (rows, 1)),
      "classes": jnp.zeros((rows, 3), jnp.int32),
      "masks": share,
    }

  found = run_of(config, tmp_path, detections=detections)
  got = list(predicted(found, f"images:{photos}/*").records)
  for record, (width, height) in zip(
    got, [(60, 80), (80, 40), (80, 50), (70, 50)], strict=True
  ):
    ratio = min(48 / width, 40 / height)
    left, top = (
      (big - round(side * ratio)) // 2
      for big, side in ((48, width), (40, height))
    )
    x, y = left, top
    wanted = [
      (12 - x) / ratio,
      (10 - y) / ratio,
      24 / ratio,
      20 / ratio,
    ]
    (one,) = [each for each in record["objects"] if each["score"] == 0.5]
    np.testing.assert_allclose(one["bbox"], wanted, atol=0.8)
    assert all(each["score"] > 0.05 for each in record["objects"])
    mask = drawing.mask_of(one["segmentation"])
    assert mask.shape == (height, width)
    columns = np.flatnonzero(mask.any(0))
    middle = one["bbox"][0] + one["bbox"][2] / 2
    assert abs(columns[0] - middle) < 1.5  # the right half of the box
    assert abs(columns[-1] + 1 - sum(one["bbox"][::2])) < 1.5


def test_classes_of_pixels_are_those_of_the_file(tmp_path):
  bright = np.full((30, 50, 3), 20, np.uint8)
  bright[:, 30:] = 220
  write(tmp_path / "in" / "a.png", bright)

  def logits(variables, batch, rng):
    mean = batch["image"].mean(-1)
    return jnp.stack([-mean, mean], -1)

  config = fcn_camvid.get_config("smoke")
  found = run_of(config, tmp_path, logits=logits)
  said = []
  (record,) = predicted(found, f"images:{tmp_path}/in/*.png", said=said).records
  mask = record["mask"].pixels()
  assert mask.shape == (30, 50)
  assert ((mask > 0) == (bright[..., 0] > 100)).mean() > 0.95
  assert [c["value"] for c in record["classes"]] == [0, 1]
  assert said == ["pictures are resized to 16 x 16 pixels; --ops sets other"]
  with Image.open(io.BytesIO(drawing.png(mask))) as image:
    assert image.mode == "P" and (np.asarray(image) == mask).all()


def test_a_large_picture_is_restored_in_tiles(photos, tmp_path):
  config = dncnn_bsd.get_config("smoke")
  config.evals.test.update(tile=32, margin=4, multiple=2)
  shapes = set()

  def denoised(variables, batch, rng):
    shapes.add(batch["image"].shape[1:])
    assert batch.get("level", jnp.zeros(1)).ndim == 1
    return batch["image"]

  found = run_of(config, tmp_path, denoised=denoised)
  shapes.clear()
  got = list(predicted(found, f"images:{photos}/b.png", level=9.0).records)
  shapes.remove((16, 16, 1))  # of training
  assert max(max(shape[:2]) for shape in shapes) <= 34
  with Image.open(photos / "b.png") as image:
    wanted = np.asarray(image)
  assert (got[0]["denoised"].pixels()[..., 0] == wanted).all()


def test_broken_pictures_are_named_and_others_go_on(photos, tmp_path):
  broken = tmp_path / "in"
  broken.mkdir()
  for name in ("a.jpg", "b.png"):
    (broken / name).write_bytes((photos / name).read_bytes())
  (broken / "c.png").write_bytes(b"no picture")
  (broken / "d.png").write_bytes((photos / "d.png").read_bytes()[:80])
  (broken / "e.png").mkdir()
  (broken / "notes.txt").write_text("notes")

  def logits(variables, batch, rng):
    return batch["image"].mean((1, 2))

  classes = run_of(
    conv_fashion_mnist.get_config("smoke"), tmp_path, logits=logits
  )
  restored = run_of(
    dncnn_bsd.get_config("smoke"),
    tmp_path,
    denoised=lambda variables, batch, rng: batch["image"],
  )
  for found in (classes, restored):
    said = []
    got = list(predicted(found, f"images:{broken}/*", said=said).records)
    assert [r["record"] for r in got] == [f"{broken}/{n}" for n in NAMES]
    text = "\n".join(said)
    for name in ("c.png", "d.png"):
      assert sum(f"skipped {broken}/{name}: " in line for line in said) == 1, (
        text
      )
    assert any(line.startswith("2 of 4 records skipped") for line in said)
    assert "e.png is a folder" in text
  with pytest.raises(UserError, match=r"no/\*.jpg matches no file"):
    predicted(classes, f"images:{tmp_path}/no/*.jpg")


def test_a_run_that_draws_and_one_that_does_not(tmp_path):
  found = run_of(gan_fashion_mnist.get_config("smoke"), tmp_path, samples=None)
  with pytest.raises(UserError, match="--number=16 draws 16"):
    predicted(found, "images:x")
  found = run_of(yolo_bccd.get_config("smoke"), tmp_path, detections=None)
  with pytest.raises(UserError, match="draws no pictures"):
    drawn.drawn(found, drawn.Drawing(1))


def test_files_of_equal_names(tmp_path):
  pixels = np.zeros((2, 2, 1), np.uint8)
  rows = [
    {"record": f"/x/{name}", "picture": Picture(lambda: pixels)}
    for name in ("a/1.jpg", "b/1.png", "b/2.png")
  ]
  folder.write(rows, Rendering(None), str(tmp_path / "out"))
  entries = json.loads((tmp_path / "out" / folder.NAME).read_text())
  assert entries == [
    {"file_name": "a/1.jpg", "picture": "1.png"},
    {"file_name": "b/1.png", "picture": "1_2.png"},
    {"file_name": "b/2.png", "picture": "2.png"},
  ]
