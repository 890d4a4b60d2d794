"""Agreement of the quality rules with datatrove's on real web pages.

  python benchmarks/data/filters_agreement.py --data=../shared/data \
    --datatrove_python=DIR/bin/python

The pages are those of web_warc_wet (aut and Common Crawl's whirlwind, WARC and
WET) and of web_html_gold, with their text extracted by trafilatura (a WET's
text is used unchanged; a page without text is left out). Each filter judges
each page separately, with its published defaults, regardless of the page's
language. datatrove (with spacy, whose tokenizer it uses to split English words)
runs in a separate interpreter, as a process that reads one JSON line per page
and answers with one.

Prints for each filter the share of equal verdicts (kept or dropped) and of
equal rules, and every page on which they differ with the reasons of both sides.
"""

import argparse
import gzip
import json
import pathlib
import subprocess
import sys

from input_pipeline.cleaning.c4 import c4
from input_pipeline.cleaning.fineweb import fineweb
from input_pipeline.cleaning.gopher_quality import gopher_quality
from input_pipeline.cleaning.gopher_repetition import gopher_repetition
from input_pipeline.document import Document, Dropped

OURS = {
  "c4": c4,
  "gopher_quality": gopher_quality,
  "gopher_repetition": gopher_repetition,
  "fineweb": fineweb,
}
# datatrove's names of the rules that have other names here.
RENAMED = {
  "gopher_short_doc": "too_few_words",
  "gopher_long_doc": "too_many_words",
  "gopher_below_avg_threshold": "short_words",
  "gopher_above_avg_threshold": "long_words",
  "gopher_too_many_hashes": "hashes",
  "gopher_too_many_ellipsis": "ellipses",
  "gopher_too_many_bullets": "bullets",
  "gopher_too_many_end_ellipsis": "ellipsis_lines",
  "gopher_below_alpha_threshold": "few_letters",
  "gopher_enough_stop_words": "few_stop_words",
  "dup_para_frac": "duplicate_paragraphs",
  "dup_para_char_frac": "duplicate_paragraph_characters",
  "dup_line_frac": "duplicate_lines",
  "dup_line_char_frac": "duplicate_line_characters",
  **{f"duplicated_{n}_n_grams": f"duplicate_{n}_gram" for n in range(5, 11)},
  "line_punct_ratio": "few_lines_with_mark",
  "short_line_ratio": "short_lines",
  "char_dup_ratio": "duplicate_characters",
  "list_ratio": "list",
}
# Runs in datatrove's interpreter: a text in, {filter: reason or null} out.
THEIRS = """
import json, sys
from loguru import logger
logger.remove()
from datatrove.data import Document
from datatrove.pipeline import filters
made = {
  "c4": filters.C4QualityFilter(),
  "gopher_quality": filters.GopherQualityFilter(),
  "gopher_repetition": filters.GopherRepetitionFilter(),
  "fineweb": filters.FineWebQualityFilter(),
}
for line in sys.stdin:
  answer = {}
  for name, one in made.items():
    result = one.filter(Document(text=json.loads(line), id="0"))
    kept, reason = result if isinstance(result, tuple) else (result, None)
    answer[name] = None if kept else reason or "?"
  print(json.dumps(answer), flush=True)
"""


def raw_pages(data: pathlib.Path):
  """Yields (name, HTML as bytes or text as str) of every page."""
  from warcio.archiveiterator import ArchiveIterator

  for path in sorted((data / "web_warc_wet").rglob("*.gz")):
    with path.open("rb") as file:
      for record in ArchiveIterator(file):
        name = f"{path.name} {record.rec_headers.get_header('WARC-Target-URI')}"
        if record.rec_type == "conversion":
          yield name, record.content_stream().read().decode("utf-8", "replace")
        elif record.rec_type == "response":
          headers = record.http_headers
          kind = headers and headers.get_header("Content-Type") or ""
          if "html" in kind:
            yield name, record.content_stream().read()
  for path in sorted((data / "web_html_gold" / "html").iterdir()):
    content = path.read_bytes()
    yield (
      path.name,
      gzip.decompress(content) if path.suffix == ".gz" else content,
    )


def pages(data: pathlib.Path) -> list[tuple[str, str]]:
  """(name, text) of every page that has text."""
  import trafilatura

  found = []
  for name, page in raw_pages(data):
    text = page if isinstance(page, str) else trafilatura.extract(page)
    if text:
      found.append((name, text))
  return found


def our_verdicts(text: str) -> dict[str, str | None]:
  """Returns {filter: the rule broken, or None}."""
  answer = {}
  for name, make in OURS.items():
    result = make(languages=None)(Document("", text))
    answer[name] = result.rule if isinstance(result, Dropped) else None
  return answer


def their_verdicts(python: str, texts: list[str]) -> list[dict]:
  """Returns datatrove's verdict on each text, in the form of `our_verdicts`."""
  done = subprocess.run(
    [python, "-c", THEIRS],
    input="".join(json.dumps(text) + "\n" for text in texts),
    capture_output=True,
    text=True,
  )
  if done.returncode:
    sys.exit(f"datatrove: {done.stderr.strip().splitlines()[-1]}")
  return [
    {name: RENAMED.get(rule, rule) for name, rule in json.loads(line).items()}
    for line in done.stdout.splitlines()
  ]


def main() -> None:
  """Prints the table and the differences."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--datatrove_python", required=True)
  args = parser.parse_args()
  found = pages(args.data)
  ours = [our_verdicts(text) for _, text in found]
  theirs = their_verdicts(args.datatrove_python, [text for _, text in found])
  print(f"{len(found)} pages with text")
  print(f"{'filter':20}{'dropped':>9}{'theirs':>9}{'verdict':>10}{'rule':>10}")
  totals = [0, 0]
  for name in OURS:
    pairs = [(a[name], b[name]) for a, b in zip(ours, theirs, strict=True)]
    same = sum((a is None) == (b is None) for a, b in pairs)
    rule = sum(a == b for a, b in pairs)
    dropped = [sum(p[side] is not None for p in pairs) for side in (0, 1)]
    print(
      f"{name:20}{dropped[0]:9}{dropped[1]:9}"
      f"{same / len(pairs):10.2%}{rule / len(pairs):10.2%}"
    )
    totals = [totals[0] + same, totals[1] + rule]
  count = len(OURS) * len(found)
  print(f"{'all':38}{totals[0] / count:10.2%}{totals[1] / count:10.2%}")
  for (page, _), a, b in zip(found, ours, theirs, strict=True):
    for name in OURS:
      if a[name] != b[name]:
        print(f"{name}: ours {a[name]}, theirs {b[name]}: {page}")


if __name__ == "__main__":
  main()
