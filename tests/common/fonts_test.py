"""Figures have the characters of their text, or the code points of them."""

import numpy as np
import pytest

from common import fonts


@pytest.fixture
def machine(monkeypatch):
  """A machine with given fonts: {name: characters}."""

  def has(**more):
    found = {fonts.DEFAULT: "abc"}
    found |= {name.replace("_", " "): chars for name, chars in more.items()}
    monkeypatch.setattr(fonts, "_files", lambda: {k: k for k in found})
    monkeypatch.setattr(fonts, "_characters", lambda path: {*found[path]})

  return has


def test_fonts_are_added_for_what_the_first_one_lacks(machine):
  machine(Odd="价x", Noto_Sans_CJK_SC="价格", Unused="abc")
  assert fonts.covering(["abc"]).family == (fonts.DEFAULT,)
  found = fonts.covering(["a价", "格", "x\n"])
  assert found.family == (fonts.DEFAULT, "Noto Sans CJK SC", "Odd")
  assert (found.missing, found.note()) == ("", "")
  assert found.drawable("a价") == "a价"


def test_what_no_font_has_is_named_and_drawn_as_code_points(machine):
  machine(Odd="价")
  found = fonts.covering(["价格a", "😀"])
  assert found.family == (fonts.DEFAULT, "Odd")
  assert found.drawable("价格😀") == "价U+683CU+1F600"
  assert "格 😀 (2 characters, drawn as code points): install" in found.note()


def test_the_fonts_of_this_machine_are_read():
  found = fonts.covering(["abc é Ω", "\U000e0fff"])
  assert found == ((fonts.DEFAULT,), "")  # What is not printable is not drawn.


def test_attention_maps_and_captions_have_no_boxes(tmp_path):
  from input_pipeline.reporting import contact_sheet, plots
  from train.evaluators import text_generation

  # A warning of a missing glyph would be an error.
  path = tmp_path / "a.png"
  text_generation.draw(path, np.ones((1, 1, 2)) / 2, ["价", "b"], ["格"])
  assert path.stat().st_size > 1000
  pixels = np.zeros((4, 4, 3), np.uint8)
  assert contact_sheet.contact_sheet([(pixels, pixels)], ["价"], "格")
  assert plots.image_grid([pixels], ["价格"])
