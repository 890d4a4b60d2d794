"""Figures: the numbers they are given are the numbers they show."""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from input_pipeline.reporting import plots

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
  return [
    "".join(node.itertext()).strip()
    for node in ElementTree.fromstring(svg).iter(f"{SVG}text")
  ]


def figures():
  return {
    "bars": plots.bars(["价格", "$a_b$", "<b>"], [3, 1234567, 0.25], "t"),
    "histogram": plots.histogram([1, 2], [0, 1, 2], "t", "x"),
    "heatmap": plots.heatmap([[1, 2], [3, 4]], "ab", "cd", "t"),
    "lines": plots.lines({"a": ([1, 2], [3, 4])}, "t"),
  }


@pytest.mark.parametrize("name", sorted(figures()))
def test_the_same_numbers_give_the_same_bytes(name):
  first, second = figures()[name], figures()[name]
  assert first == second
  assert "date" not in first.lower()
  # No fonts and no pictures but those of the reader's browser.
  assert not [
    value
    for node in ElementTree.fromstring(first).iter()
    for key, value in node.attrib.items()
    if key.endswith("href") and not value.startswith("#")
  ]


def test_labels_of_any_script_stay_text():
  found = texts(figures()["bars"])
  assert {"价格", "$a_b$", "<b>", "3", "1,234,567", "0.25"} <= set(found)
  assert "sans-serif" in figures()["bars"]
  assert "DejaVu" not in figures()["bars"]


def test_a_heatmap_numbers_its_cells():
  assert {"1", "2", "3", "4", "a", "d"} <= set(texts(figures()["heatmap"]))


def test_shares_are_drawn_where_sets_are_compared():
  drawn = plots.histograms(
    [("t", {"small": [1, 1], "large": [1000, 3000]}, [0.0, 0.5, 1.0])]
  )
  highest = max(float(t) for t in texts(drawn) if t.replace(".", "").isdigit())
  assert 0.7 < highest <= 1.0
  assert {"small", "large", "share"} <= set(texts(drawn))


def test_control_characters_do_not_break_the_picture():
  assert "aU+0001b" in texts(plots.bars(["a\x01b"], [1]))
  assert "aU+202Eb" in texts(plots.bars(["a\u202eb"], [1]))


def test_an_image_grid_shows_every_pixel():
  first = np.zeros((4, 4, 3), np.uint8)
  first[:2] = (255, 0, 0)
  second = np.full((2, 4), 77, np.uint8)
  png = plots.image_grid([first, second], columns=2, side=16)
  assert png == plots.image_grid([first, second], columns=2, side=16)
  sheet = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
  assert sheet.shape == (32, 56, 3)
  assert (sheet[8:16, 8:24] == (255, 0, 0)).all()
  assert (sheet[16:24, 8:24] == 0).all()
  # Half as high as it is wide, so in the middle.
  assert (sheet[12:20, 32:48] == 77).all()
  assert (sheet[8:11, 32:48] == 255).all()


def test_captions_stand_below():
  image = np.zeros((4, 4), np.uint8)
  plain = plots.image_grid([image], [""])
  told = plots.image_grid([image], ["bag"])
  a, b = (
    np.asarray(Image.open(io.BytesIO(x)).convert("L")) for x in (plain, told)
  )
  assert (a[:104] == b[:104]).all()
  assert (a[104:] != b[104:]).any()
