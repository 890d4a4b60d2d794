"""What preview shows is what is in the batch, and what is in the files."""

import io
import os
import pathlib
import re
import subprocess
import sys

import experiments
import forkserver
import numpy as np
import pytest
from tiers import slow_but

Image = pytest.importorskip("PIL.Image", reason="Pillow comes with matplotlib")

from common import config_keys  # noqa: E402
from input_pipeline import ops  # noqa: E402
from input_pipeline.batching import pipeline  # noqa: E402
from input_pipeline.batching.added_tokens import extended  # noqa: E402
from input_pipeline.preview import preview  # noqa: E402
from input_pipeline.reporting import (  # noqa: E402
  marks,
  preview_images,
  preview_text,
)
from input_pipeline.reporting.contact_sheet import contact_sheet  # noqa: E402
from input_pipeline.tokenizers import get_tokenizer  # noqa: E402

ROOT = pathlib.Path(__file__).parents[3]


# One for each kind of data.
SHOWN = (
  "adult",
  "boxes_bccd",
  "cartpole",
  "cls_trec",
  "digits_fsdd",
  "lm_shakespeare",
  "fcn_camvid",
  "mt_multi30k",
  "resnet_cifar10",
  "sft_chat",
  "transe_umls",
)


def config_of(name, **data):
  config = experiments.config_of(name)
  config.data.update(data)
  return config_keys.complete(config)


def byte(string=""):
  return extended(get_tokenizer("byte", "fake:text"), string)


@pytest.mark.parametrize("name", slow_but(SHOWN, experiments.NAMES))
def test_every_config_is_shown(name, tmp_path):
  config = config_of(name)
  if str(config["data"].get("source")).startswith("environment:"):
    with pytest.raises(ValueError, match="has no records to read"):
      list(preview(config, 1, 3, str(tmp_path)))
    return
  lines = list(preview(config, 1, 3, str(tmp_path)))
  data = pipeline.train(
    **config["data"], batch_size=config["batch_size"], seed=config["seed"]
  )
  batches = data.batches(0)
  next(batches)
  batch = next(batches)  # step 1
  for leaf, value in batch.items():
    told = [line.split(maxsplit=1) for line in lines[1 : 1 + len(batch)]]
    shape, dtype = dict(told)[leaf].rsplit(maxsplit=1)
    assert shape == str(list(value.shape)) and dtype == str(value.dtype)
  rest = "\n".join(lines)
  sheet = tmp_path / "contact_sheet.png"
  assert sheet.exists() == ("image" in batch)
  if "image" in batch:
    assert f"3 images before and after: {sheet}" in lines[-1]
  else:
    for row in range(min(3, len(batch["index"]))):
      assert f"row {row}, example {batch['index'][row]}\n" in rest
    assert "row 3" not in rest
  if "inputs" in batch:
    real = batch["mask"][0] > 0
    ids = batch["targets"][0][real]
    text = data.tokenizer.decode(ids[ids != data.tokenizer.eos])
    assert f'targets  "{text}' in rest or "segment" in rest


def test_the_rows_of_a_large_batch_are_those_of_the_whole(tmp_path):
  config = config_of("lm_stdlib")
  config["batch_size"] = 24
  few = list(preview(config, 5, 2, str(tmp_path)))
  many = list(preview(config, 5, 24, str(tmp_path)))
  at = many.index(next(line for line in many if line.startswith("row 2")))
  assert few == many[:at]


@pytest.mark.parametrize(
  "string",
  [
    "scale(-1, 1)",
    "scale(0, 1)",
    "scale",
    "to_float",
    "normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))",
    "to_float|normalize(0.5, 0.25)",
    "scale(0.0, high=1.0)|normalize(0.5, std=0.25)",
    "flip(p=0.0)|scale|flip(p=0.0)",
    "scale(inkey='other', outkey='else')",
  ],
)
def test_the_ops_that_scale_are_undone(string):
  tf = pytest.importorskip("tensorflow")
  image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
  example = {"image": tf.constant(image), "other": tf.constant(image)}
  changed = ops.compile(string)(example, tf.constant([0, 0], tf.int64))
  found, known = preview_images.shown(changed["image"].numpy(), string)
  assert known
  np.testing.assert_array_equal(found, image)


def test_an_image_of_unknown_range_is_stretched():
  image = np.linspace(-3, 5, 12, dtype=np.float32).reshape(2, 2, 3)
  found, known = preview_images.shown(image, "noise(1)")
  assert not known
  np.testing.assert_array_equal(found.ravel(), np.rint(np.linspace(0, 255, 12)))
  flat, _ = preview_images.shown(np.full((2, 2, 1), 7.0))
  np.testing.assert_array_equal(flat, 0)


def test_originals_are_the_files_own(tmp_path):
  pytest.importorskip("tensorflow")
  arrays = {}
  for i, kind in enumerate(("cats", "dogs")):
    (tmp_path / kind).mkdir()
    array = np.random.default_rng(i).integers(0, 256, (7 + i, 5, 3), np.uint8)
    path = tmp_path / kind / "1.png"
    Image.fromarray(array).save(path)
    arrays[str(path)] = array
  settings = {"source": f"folder:{tmp_path}", "split": "all"}
  found = preview_images.examples(settings)
  string = "decode(3)|resize(4)|flip"
  images = preview_images.originals(found, np.array([1, 0]), string)
  for i, image in zip((1, 0), images, strict=True):
    np.testing.assert_array_equal(image, arrays[found.name(i)])
  grey = preview_images.originals(found, np.array([0]), "decode(channels=1)")
  assert grey[0].shape[1:] == (5, 1)


def test_labels_as_captions():
  assert preview_images.label(np.int32(3)) == "label 3"
  shares = np.array([0, 0.25, 0, 0.75], np.float32)
  assert preview_images.label(shares) == "3: 0.75, 1: 0.25"


def colour(value, shape=(8, 8)):
  return np.broadcast_to(np.array(value, np.uint8), (*shape, len(value)))


def test_a_contact_sheet_shows_each_image_in_its_place():
  colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [200, 200, 0],
                      [0, 200, 200]])  # fmt: skip
  pairs = [(colour(c), colour(c // 2, (40, 20))) for c in colours]
  pairs[2] = (colour([99]), pairs[2][1])  # grey
  data = contact_sheet(pairs, [f"no. {i}" for i in range(5)], "title $x$")
  assert data == contact_sheet(
    pairs, [f"no. {i}" for i in range(5)], "title $x$"
  )
  sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
  places = {}
  for i, (before, after) in enumerate(pairs):
    for side, image in (("before", before), ("after", after)):
      wanted = image[0, 0] if image.shape[2] == 3 else np.repeat(image[0, 0], 3)
      same = (np.abs(sheet - wanted) <= 1).all(-1)
      same &= same.sum(1, keepdims=True) > 40  # no edge of a letter
      at = np.argwhere(same)
      (top, left), (bottom, right) = at.min(0), at.max(0) + 1
      height, width = bottom - top, right - left
      assert len(at) > 0.95 * height * width  # one whole rectangle
      # In its own proportions, as large as the square of 130 pixels permits.
      assert abs(max(height, width) - 130) <= 2
      assert abs(height * image.shape[1] - width * image.shape[0]) <= 130
      places[i, side] = np.array([top, left])
  for i in range(5):
    assert places[i, "before"][1] < places[i, "after"][1]
  for i in range(1, 4):  # four across
    assert places[i, "before"][1] > places[i - 1, "after"][1]
    assert places[i, "before"][0] == places[0, "before"][0]
  assert places[4, "before"][0] > places[0, "before"][0] + 130
  assert places[4, "before"][1] == places[0, "before"][1]


def test_boxes_and_masks_are_drawn_over_the_pictures():
  grey = np.full((40, 60, 3), 90, np.uint8)
  mask = np.full((40, 60), 255)
  mask[20:, :30] = 2
  row = {
    "boxes": np.array([[6, 6, 54, 34], [1, 1, 2, 2]], np.float32),
    "boxes_mask": np.array([1, 0], np.float32),
    "classes": np.array([4, 0]),
    "segmentation": mask,
  }
  found = marks.found(row, ("a", "b", "c", "d", "cell"))
  assert found.texts == ("cell",) and found.boxes.tolist() == [[6, 6, 54, 34]]
  assert marks.found({"image": grey}) is None
  tinted = marks.tinted(grey, found)
  np.testing.assert_array_equal(tinted[mask == 255], 90)
  wanted = 0.45 * 90 + 0.55 * 255 * np.array(marks.colour(2))
  np.testing.assert_allclose(tinted[30, 10], wanted, atol=1)
  sheet = contact_sheet([(grey, grey)], ["x"], "", [(None, found)])
  pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB")).astype(int)
  line = np.rint(255 * np.array(marks.colour(4)))
  at = np.argwhere((np.abs(pixels - line) < 40).all(-1))
  inside = np.argwhere((np.abs(pixels - 90) <= 1).all(-1))
  right = inside[:, 1].max() + 1  # the picture of 60 x 40 is 360 pixels wide
  (top, left), (bottom, end) = at.min(0), at.max(0) + 1
  assert abs(end - (right - 36)) <= 3 and abs(left - (right - 324)) <= 3
  assert abs((bottom - top) - 6 * 28) <= 6


def test_the_masks_of_objects_have_colours_of_their_own():
  grey = np.full((8, 9, 1), 90, np.uint8)
  instances = np.zeros((3, 8, 9), np.uint8)
  instances[0, :2], instances[1, 2:4], instances[2, 6:] = 1, 1, 1
  row = {"instances": instances, "instances_mask": np.array([1, 1, 0])}
  for more in ({}, {"boxes": np.zeros((0, 4)), "boxes_mask": np.zeros(0)}):
    tinted = marks.tinted(grey, marks.found({**row, **more}))
    for number in (0, 1):
      wanted = 0.45 * 90 + 0.55 * 255 * np.array(marks.colour(number))
      np.testing.assert_allclose(tinted[2 * number, 0], wanted, atol=1)
    assert (tinted[4:] == 90).all()  # padding is not drawn


def window(text, target, mask=None, **others):
  inputs = np.array(list(text), np.int32)
  mask = np.ones(len(inputs)) if mask is None else np.array(mask)
  return {
    "index": np.array([7]),
    "inputs": inputs[None],
    "targets": np.array(list(target), np.int32)[None],
    "mask": mask[None].astype(np.float32),
    **{name: np.asarray(leaf)[None] for name, leaf in others.items()},
  }


def test_a_window_is_decoded_with_what_cannot_be_seen():
  batch = window(b"a\nb\0c", b"\nb\0cd", bytes=np.float32(5))
  assert preview_text.rows(batch, byte(), 9) == [
    "row 0, example 7",
    '  inputs   "a\\nb⟨eos⟩c"',
    '  targets  "\\nb⟨eos⟩cd"',
    "           mask 1 on 5 of 5",
    "  bytes: 5.",
  ]
  short = window(b"ab\0\0", b"bc\0\0", [1, 1, 0, 0])
  assert preview_text.rows(short, byte(), 1)[1:] == [
    '  inputs   "ab"',
    "  padding  2",
    '  targets  "bc"',
    "           mask 1 on 2 of 4",
  ]


def test_masks_show_as_tokens_and_targets_by_place():
  tokens = byte("mask_tokens")
  text = [104, 256, 108, 256, 256]
  batch = window(text, b"hello", [0, 1, 0, 1, 1])
  assert preview_text.rows(batch, tokens, 1)[1:] == [
    '  inputs   "h<mask>l<mask><mask>"',
    '  targets  1: "e" | 3: "lo"',
    "           mask 1 on 3 of 5",
  ]


def test_corrupted_spans_have_two_lengths():
  tokens = byte("span_corruption")
  batch = window(
    [104, 355, 111, 0], [355, 101, 0], [1, 1, 1], inputs_mask=[1, 1, 1, 0]
  )
  assert preview_text.rows(batch, tokens, 1)[1:] == [
    '  inputs   "h<extra_id_0>o"',
    "  padding  1",
    '  targets  "<extra_id_0>e⟨eos⟩"',
    "           mask 1 on 3 of 3",
  ]


def test_packed_rows_are_shown_piece_by_piece():
  batch = window(
    b"abxyz\0",
    b"b\0yz\0\0",
    [1, 1, 1, 1, 1, 0],
    segments=[1, 1, 2, 2, 2, 0],
    positions=[0, 1, 0, 1, 2, 0],
  )
  assert preview_text.rows(batch, byte(), 1)[1:] == [
    "  segment 1: tokens 0 to 1, positions 0 to 1",
    '    inputs   "ab"',
    '    targets  "b⟨eos⟩"',
    "             mask 1 on 2 of 2",
    "  segment 2: tokens 2 to 4, positions 0 to 2",
    '    inputs   "xyz"',
    '    targets  "yz⟨eos⟩"',
    "             mask 1 on 3 of 3",
    "  padding  1",
  ]


def test_other_fields_are_printed_and_padding_is_told():
  batch = {
    "index": np.array([4, -1]),
    "mask": np.array([1, 0], np.float32),
    "x": np.array([[0.25, 1 / 3], [0, 0]], np.float32),
  }
  assert preview_text.rows(batch, None, 5) == [
    "row 0, example 4",
    "  mask: 1.",
    "  x: [0.25 , 0.3333]",
    "row 1: padding",
  ]


def test_text_cannot_command_the_terminal():
  lines = preview_text.rows(window(b"\x1b[2J", b"[2J\x07"), byte(), 1)
  assert lines[1] == '  inputs   "\\x1b[2J"'
  assert all(line.isprintable() for line in lines)


def run(*args):
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  command = [sys.executable, "-m", "input_pipeline.preview", *args]
  return forkserver.run(
    command, cwd=ROOT, env=env, capture_output=True, text=True
  )


@pytest.mark.parametrize(
  ("args", "named"),
  [
    ([], "--config is missing, for example --config=lm_stdlib"),
    (["--config.data.sorce=x"], 'sorce: unknown .*did you mean "source"'),
    (["--config.data.source=text:/nowhere"], "config.data: text:/nowhere"),
  ],
)
def test_an_error_is_one_line(args, named):
  config = ["--config=configs/language/lm_stdlib.py:smoke"] if args else []
  done = run(*config, *args)
  assert done.returncode == 2
  lines = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
  assert len(lines) == 1 and re.search(named, lines[0])
  assert "Traceback" not in done.stderr


def test_help_needs_nothing_heavy():
  code = """
import sys
sys.argv = ["x", "--helpshort"]
import input_pipeline.preview
heavy = {"jax", "numpy", "matplotlib", "tensorflow"}
print(sorted(set(sys.modules) & heavy))
"""
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.strip() == "[]"


def test_a_labeled_text_is_shown_as_text():
  data = pipeline.evaluation(
    source="fake:labeled_text?documents=4&length=5",
    split="all",
    tokenizer="byte",
    seq_len=12,
    rows=dict(name="labeled"),
    batch_size=4,
  )
  batch = next(data.batches(0))
  text = data.texts(np.array([0]))["text"][0]
  lines = preview_text.rows(batch, data.tokenizer, 1)
  assert lines[1] == f'  tokens   "<cls>{text}<sep>"'
  assert lines[2] == f"  padding  {10 - len(text)}"
  assert lines[3] == "  label: 0"
