"""Fonts for the text of figures, in the one place that knows them.

Matplotlib's own font has no Chinese, Japanese or Korean characters and draws
boxes for them. Here the fonts of the machine that have the characters of a
figure are found, and characters that none of them has become their code points.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

DEFAULT = "DejaVu Sans"
# Tried first, since they have many characters in one style.
_PREFERRED = (
  "Noto Sans CJK SC",
  "Noto Sans CJK JP",
  "Noto Sans SC",
  "Source Han Sans SC",
  "PingFang SC",
  "Hiragino Sans GB",
  "Microsoft YaHei",
  "SimHei",
  "WenQuanYi Zen Hei",
  "WenQuanYi Micro Hei",
  "Arial Unicode MS",
  "Noto Sans",
)
_FEW = 10


class Fonts(NamedTuple):
  """The fonts of a figure.

  family: names of fonts, each for the characters that those before it lack.
  missing: the characters that no font of the machine has, sorted.
  """

  family: tuple[str, ...]
  missing: str = ""

  def drawable(self, text: str) -> str:
    """The text, with code points such as U+4EF7 for missing characters."""
    return "".join(f"U+{ord(c):04X}" if c in self.missing else c for c in text)

  def note(self) -> str:
    """A line that names the missing characters, or ""."""
    if not self.missing:
      return ""
    more = "…" if len(self.missing) > _FEW else ""
    return (
      f"no font of this machine has {' '.join(self.missing[:_FEW])}{more}"
      f" ({len(self.missing)} characters, drawn as code points): install one,"
      " such as Noto Sans CJK"
    )


def covering(texts: Iterable[str]) -> Fonts:
  """The fonts that have the characters of some texts."""
  wanted = {c for text in texts for c in text if c.isprintable()}
  wanted -= _characters(_files()[DEFAULT]) if DEFAULT in _files() else set()
  family = [DEFAULT]
  others = sorted(set(_files()) - {DEFAULT, *_PREFERRED}) if wanted else ()
  for name in (*_PREFERRED, *others):
    if not wanted:
      break
    if name in _files():
      found = wanted & _characters(_files()[name])
      if found:
        family.append(name)
        wanted -= found
  return Fonts(tuple(family), "".join(sorted(wanted)))


@functools.cache
def _files() -> dict[str, str]:
  """{name of a font: its file}, regular ones where there are several."""
  from matplotlib import font_manager

  found: dict[str, str] = {}
  # Oblique and bold ones come first, so that the regular one is kept.
  for font in sorted(font_manager.fontManager.ttflist, key=_plainness):
    found[font.name] = font.fname
  return found


def _plainness(font) -> tuple[bool, bool, str]:
  regular = font.weight in (400, "normal", "regular", "book")
  return font.style == "normal", regular, font.fname


@functools.lru_cache(maxsize=64)
def _characters(path: str) -> frozenset[str]:
  from matplotlib import font_manager

  try:
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
  except (OSError, RuntimeError):  # The font was removed, or cannot be read.
    return frozenset()
