"""Average precision of hand-made predictions."""

import sys

import numpy as np
import pytest
from detections import figures

# One object of 100 x 100 pixels, and one of 20 x 20 of another class.
LARGE, SMALL = [0, 0, 100, 100], [200, 100, 220, 120]
NEAR = [0, 0, 60, 100]  # IoU 0.6 with LARGE


def test_one_object_by_hand():
  found = figures([([(LARGE, 0)], [(NEAR, 0, 0.01)])])
  # Found at the thresholds 0.5, 0.55 and 0.6 of ten, at however low a score.
  assert found["map50"] == pytest.approx(1) and found["map75"] == 0
  assert found["map"] == pytest.approx(0.3)
  assert found["map_large"] == pytest.approx(0.3)
  assert "map_small" not in found  # there is no such object


def test_an_image_without_objects_is_a_negative():
  hit = ([(LARGE, 0)], [(LARGE, 0, 0.5)])
  assert figures([hit, ([], [])])["map"] == pytest.approx(1)
  assert figures([hit, ([], [(SMALL, 0, 0.4)])])["map"] == pytest.approx(1)
  # A false detection of a higher score: the precision is 1/2 at every recall.
  assert figures([hit, ([], [(SMALL, 0, 0.6)])])["map"] == pytest.approx(0.5)
  # The mean over two classes, of which one is never found.
  other = ([(SMALL, 1)], [])
  found = figures([hit, other])
  assert found["map50"] == pytest.approx(0.5)
  assert (found["map_small"], found["map_large"]) == (0, pytest.approx(1))


def test_rows_of_padding_and_crowds_do_not_count():
  hit = ([(LARGE, 0)], [(LARGE, 0, 0.5)])
  missed = ([(SMALL, 0)], [(NEAR, 0, 0.9)])
  padding = np.array([1, 0], np.float32)
  assert figures([hit, missed], mask=padding)["map"] == pytest.approx(1)
  crowd = np.array([[0, 0, 0], [1, 0, 0]])
  within = ([(SMALL, 0)], [([205, 100, 215, 110], 0, 0.9)])
  assert figures([hit, within])["map"] < 0.6
  assert figures([hit, within], crowd=crowd)["map"] == pytest.approx(1)


def test_boxes_are_compared_in_the_original_file():
  # The input is the file at a fifth of its size, flipped, after a shift.
  place = np.array([[[-5.0, 0, 640], [0, 5, 10]]], np.float32)
  found = figures([([(SMALL, 0)], [(SMALL, 0, 0.5)])], place=place)
  assert found["map_large"] == pytest.approx(1)
  assert "map_small" not in found


def test_masks_are_compared_in_the_original_file():
  disc = np.hypot(*np.mgrid[-9.5:10, -9.5:10]) < 10
  whole = np.zeros((1, 3, 40, 60), np.uint8)
  whole[0, 0, 5:25, 30:50] = disc
  row = ([([30, 5, 50, 25], 0)], [([30, 5, 50, 25], 0, 0.5)])
  place = np.array([[[2.0, 0, -3], [0, 2, 0]]], np.float32)
  masks = np.zeros((1, 3, 20, 20), np.float32)
  masks[0, 0] = disc
  found = figures([row], instances=whole, masks=masks, place=place)
  assert found["mask_ap"] == pytest.approx(1)
  # The half of the disc: IoU 0.5, of which only the first threshold is met.
  masks[0, 0, :, 10:] = 0
  found = figures([row], instances=whole, masks=masks, place=place)
  assert found["mask_ap50"] == pytest.approx(1)
  assert found["mask_ap"] < 0.3 and found["map"] == pytest.approx(1)


def test_without_pycocotools_one_line_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "pycocotools", None)
  with pytest.raises(ValueError, match=r"pip install -e '.\[vision\]'"):
    figures([([], [])])
