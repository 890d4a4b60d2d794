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
from configs.vision.classification import conv_fashion_mnist
from configs.vision.detection import detr_bccd, faster_rcnn_bccd, yolo_bccd
from configs.vision.generation import (
  ddpm_fashion_mnist,
  dit_fashion_mnist,
  gan_fashion_mnist,
  latent_fashion_mnist,
  stylegan2_fashion_mnist,
  text_fashion_mnist,
  vae_fashion_mnist,
  vqvae_fashion_mnist,
)
from configs.vision.restoration import dncnn_bsd
from configs.vision.segmentation import fcn_camvid
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
  "masks": fcn_camvid,
  "denoiser": dncnn_bsd,
  "vae": vae_fashion_mnist,
  "vqvae": vqvae_fashion_mnist,
}
DRAWING = {
  "gan": gan_fashion_mnist,
  "vae": vae_fashion_mnist,
  "ddpm": ddpm_fashion_mnist,
  "dit": dit_fashion_mnist,
  "latent": latent_fashion_mnist,
  "stylegan2": stylegan2_fashion_mnist,
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
  ["gan", *(pytest.param(n, marks=pytest.mark.slow) for n in [*DRAWING][1:])],
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
  for each in got[0]:
    assert each["picture"].shape == (8, 8, 1)
    assert each["picture"].std() > 0


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


def test_a_label_that_would_hide_another_object_is_left_out():
  image = np.full((80, 120, 3), 9, np.uint8)
  shared = {"category_id": 1, "label": "cell"}
  large = {**shared, "bbox": [10, 40, 60, 30], "score": 0.9}
  small = {**shared, "bbox": [14, 28, 12, 8], "score": 0.5}
  alone = drawing.objects(image, [large])
  inside = (slice(29, 35), slice(15, 25))
  assert (alone[inside] != 9).all(-1).mean() > 0.5  # the label is there
  both = drawing.objects(image, [large, small])
  np.testing.assert_array_equal(both[inside], image[inside])
  assert (both[40, 10:70] == alone[40, 10:70]).all()


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


@pytest.mark.parametrize("views", ["none", "window", "flips"])
def test_pixels_are_seen_in_windows_and_mirror_images(views, photos, tmp_path):
  """Pictures that no op resizes keep their size where there is a window."""
  shapes = set()

  def logits(variables, batch, rng):  # they depend on the place in the view
    image_BHWC = batch["image"]
    shapes.add(image_BHWC.shape[1:3])
    column = jnp.arange(image_BHWC.shape[2]) / image_BHWC.shape[2]
    red = image_BHWC[..., 0] + column[None, None] - 0.5
    return jnp.stack([jnp.zeros_like(red), 3 * red], -1)

  config = fcn_camvid.get_config("smoke")
  config.evals.test.flips = views == "flips"  # the run's own setting
  found = run_of(config, tmp_path, logits=logits)
  shapes.clear()
  options = {"window": {"window": (24, 32), "overlap": 0.25}}.get(views, {})
  got = [
    [
      opened(each)
      for each in predicted(
        found, f"images:{photos}/[ab]*", batch, **options
      ).records
    ]
    for batch in (1, 8)
  ]
  for first, second in zip(*got, strict=True):
    alike(first, second)
  assert shapes == {"window": {(16, 16), (24, 32)}}.get(views, {(16, 16)})
  if views == "window":
    with Image.open(photos / "b.png") as image:
      red = np.asarray(image) / 127.5 - 1  # 80 x 40
    total, count = np.zeros((2, *red.shape))
    for y in (0, 16):
      for x in (0, 24, 48):
        seen = red[y : y + 24, x : x + 32] + np.arange(32) / 32 - 0.5
        total[y : y + 24, x : x + 32] += 1 / (1 + np.exp(-3 * seen))
        count[y : y + 24, x : x + 32] += 1
    sure = np.abs(total / count - 0.5) > 1e-3
    wanted = total / count > 0.5
    assert (got[0][1]["mask"] == wanted)[sure].all()
  if views == "flips":
    # In the mean, the columns cancel out.
    bare = predicted(found, f"images:{photos}/[ab]*", flips=False).records
    for record, seen in zip(bare, got[0], strict=True):
      columns = np.arange(seen["mask"].shape[1]) < seen["mask"].shape[1] / 2
      assert (opened(record)["mask"] > seen["mask"])[:, ~columns].any()
      assert (opened(record)["mask"] < seen["mask"])[:, columns].any()
  with pytest.raises(UserError, match="--level: the predictions of this run"):
    predicted(found, f"images:{photos}/*", level=3.0)


@pytest.mark.parametrize("set_by", ["run", "user", "nobody"])
def test_classes_of_a_picture_and_its_mirror_image(set_by, tmp_path):
  bright = np.zeros((20, 20), np.uint8)
  bright[:, 10:] = 255
  write(tmp_path / "in" / "a.png", bright)

  def logits(variables, batch, rng):
    left_B = batch["image"][:, :, 0].mean((1, 2))  # -1, of its mirror image 1
    return jnp.stack([3 * left_B, jnp.zeros_like(left_B)], -1)

  config = conv_fashion_mnist.get_config("smoke")
  config.evals.test.ops = "decode(1)|resize(8)|scale(-1, 1)"
  config.evals.test.flips = set_by == "run"
  found = run_of(config, tmp_path, logits=logits)
  flips = True if set_by == "user" else None
  (record,) = predicted(found, f"images:{tmp_path}/in/*", flips=flips).records
  # the second class has 1 / (1 + exp(-3)), and in the mirror image the first
  wanted = 1 / (1 + np.exp(-3)) if set_by == "nobody" else 0.5
  assert record["probability"] == pytest.approx(wanted, abs=1e-4)


def test_prompts_and_labels_are_drawn_in_turn(tmp_path):
  config = text_fashion_mnist.get_config("smoke")

  def samples(variables, batch, rng):
    text_BS = batch["caption"].astype(jnp.float32) / 127.5 - 1
    return text_BS[:, None, :, None]

  found = run_of(config, tmp_path, samples=samples)
  texts = ("a bag", "ein Mantel ä")
  got = list(drawn.drawn(found, drawn.Drawing(3, prompts=texts)).records)
  for record, text in zip(got, (*texts, texts[0]), strict=True):
    assert record["prompt"] == text
    row = record["picture"].pixels()[0, :, 0]
    assert bytes(row.tolist()).rstrip(b"\0").decode() == text
  (record,) = drawn.drawn(found, drawn.Drawing(1)).records
  assert "prompt" not in record and not record["picture"].pixels().any()
  for wanted, line in (
    (drawn.Drawing(1, prompts=("x" * 33,)), "has 33 bytes, more than 32"),
    (drawn.Drawing(1, label="bag"), "--prompt gives a text"),
  ):
    with pytest.raises(UserError, match=line):
      drawn.drawn(found, wanted)

  def classes(variables, batch, rng):
    return jnp.zeros((1, 1, 1, 1)) + batch["label"][:, None, None, None] / 9

  found = run_of(
    dit_fashion_mnist.get_config("smoke"), tmp_path, samples=classes
  )
  got = list(drawn.drawn(found, drawn.Drawing(2, label="1")).records)
  assert [record["label"] for record in got] == ["1", "1"]
  with pytest.raises(UserError, match="--prompt: this run draws without texts"):
    drawn.drawn(found, drawn.Drawing(1, prompts=("a bag",)))


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
