"""Main-text extraction on pages with gold snippets, compared to trafilatura.

  python benchmarks/data/extraction.py --data=DATA/web_html_gold

For each page evaldata.json lists snippets that the main text must contain
("with") and others that it must not ("without"). They are counted over all
pages, as in trafilatura's own evaluation: a true positive is a "with" that is
found, a false positive a "without" that is found; a page without text contains
none.

"prepare" is the stage as `prepare` runs it, "extract" is trafilatura's function
with the settings named. The time is CPU time; the work that the stage leaves to
a separate process is done in this process. The exit code is 1 if the stage's F1
is more than 0.005 below the best of trafilatura's.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable

from input_pipeline import charset
from input_pipeline.cleaning.extract import extract
from input_pipeline.cleaning.parts.extract_page import Settings, main_text
from input_pipeline.document import Document

# The F1 may be this much lower than trafilatura's own.
_MARGIN = 0.005

OWN = {
  "default": {},
  "no comments": dict(include_comments=False),
  "precision": dict(include_comments=False, favor_precision=True),
  "recall": dict(include_comments=False, favor_recall=True),
  "fast": dict(include_comments=False, fast=True),
  "fast, precision": dict(
    include_comments=False, fast=True, favor_precision=True
  ),
  "fast, recall": dict(include_comments=False, fast=True, favor_recall=True),
}
OURS = {
  "default": {},
  "precision": dict(favor="precision"),
  "recall": dict(favor="recall"),
  "fallback": dict(fallback=True),
  "fallback, precision": dict(fallback=True, favor="precision"),
  "fallback, recall": dict(fallback=True, favor="recall"),
  "without tables": dict(tables=False),
  "with comments": dict(comments=True),
}


def score(texts: dict[str, str], gold: list[dict]) -> tuple[int, int, int, int]:
  """Returns (true positives, false negatives, false positives, true negatives).

  Args:
    texts: {file: main text}.
    gold: of each page "file", "with" and "without".
  """
  found = [s in texts[page["file"]] for page in gold for s in page["with"]]
  noise = [s in texts[page["file"]] for page in gold for s in page["without"]]
  tp, fp = sum(found), sum(noise)
  return tp, len(found) - tp, fp, len(noise) - fp


def f1(counts: tuple[int, int, int, int]) -> float:
  """Returns the harmonic mean of precision and recall."""
  tp, fn, fp, _ = counts
  return 2 * tp / (2 * tp + fn + fp) if tp else 0.0


def stage(**settings) -> Callable[[bytes], str]:
  """Returns (page) -> its main text, extracted as in the stage of `prepare`."""
  apply = extract(**settings)
  return lambda html: getattr(apply(Document("page", "", {}, html)), "text", "")


def page(**settings) -> Callable[[bytes], str]:
  """Returns (page) -> its main text, parsed in this process."""
  chosen = Settings(**settings)

  def text(html: bytes) -> str:
    decoded = charset.page(html)
    return main_text(html if decoded is None else decoded.encode(), chosen)[1]

  return text


def own(**settings) -> Callable[[bytes], str]:
  """Returns (page) -> its main text, as extracted by trafilatura."""
  import trafilatura

  return lambda html: trafilatura.extract(html, **settings) or ""


def main() -> int:
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--data", type=pathlib.Path, required=True)
  args = parser.parse_args()
  gold = list(json.loads((args.data / "evaldata.json").read_text()).values())
  files = sorted({page["file"] for page in gold})
  pages = {file: (args.data / "html" / file).read_bytes() for file in files}
  print(
    f"{len(pages)} pages\n{'':28}{'F1':>8}{'precision':>11}{'recall':>8}"
    f"{'TP':>5}{'FN':>5}{'FP':>5}{'TN':>5}{'ms a page':>11}"
  )
  best = {}
  for who, make, timed, choices in (
    ("extract", own, own, OWN),
    ("prepare", stage, page, OURS),
  ):
    for name, settings in choices.items():
      text = make(**settings)
      texts = {file: text(html) for file, html in pages.items()}
      text = timed(**settings)
      start = time.process_time()
      for html in pages.values():
        text(html)
      seconds = time.process_time() - start
      counts = score(texts, gold)
      tp, fn, fp, tn = counts
      best[who, name] = f1(counts)
      print(
        f"{who + ': ' + name:28}{f1(counts):8.4f}{tp / max(tp + fp, 1):11.4f}"
        f"{tp / max(tp + fn, 1):8.4f}{tp:5}{fn:5}{fp:5}{tn:5}"
        f"{1e3 * seconds / len(pages):11.1f}",
        flush=True,
      )
  target = max(v for (who, _), v in best.items() if who == "extract")
  ours = best["prepare", "default"]
  print(f"ours {ours:.4f}, trafilatura's best {target:.4f}")
  return 0 if ours >= target - _MARGIN else 1


if __name__ == "__main__":
  sys.exit(main())
