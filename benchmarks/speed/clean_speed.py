"""Cleaning speed per core, compared to datatrove on the same pages.

  python benchmarks/speed/clean_speed.py --data=../shared/data \
    --datatrove_python=DIR/bin/python

The data is the HTML pages of web_warc_wet and web_html_gold. There are four
parts: extraction of the main text; each of four quality filters (Gopher's two,
C4's, FineWeb's) on each text; near duplicates among the texts (MinHash of
5-grams, 112 values in 14 bands, including files if a side keeps files); and all
of them in sequence, each on the documents that the one before kept. The texts
of the second and third part are the same for both sides. Each side has its
default settings.

Each side is one process, which runs its HTML parser in another. The CPU time
of both is counted, so the speed per core does not depend on other work on the
machine. The sides take turns, part by part; the first round is not counted.
datatrove needs spacy and lxml_html_clean in its interpreter.
"""

import argparse
import base64
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

SIDES = ("ours", "datatrove")
PARTS = ("extract", "filters", "near_duplicates", "whole")


def cpu_seconds() -> float:
  """Returns the CPU time of this process and its children, dead or alive."""
  ticks, tick = 0, os.sysconf("SC_CLK_TCK")
  times = os.times()
  for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      fields = path.read_text().rpartition(")")[2].split()
    except OSError:  # it ended just now
      continue
    if int(fields[1]) == os.getpid():
      ticks += int(fields[11]) + int(fields[12])
  children = times.children_user + times.children_system
  return time.process_time() + children + ticks / tick


def our_side():
  """Returns (documents from pages, documents from texts, {part: function})."""
  from input_pipeline.cleaning import (
    c4,
    extract,
    fineweb,
    gopher_quality,
    gopher_repetition,
    near_duplicates,
  )
  from input_pipeline.document import Counted, Document, Dropped

  page_text = extract.extract()
  filters = [
    gopher_repetition.gopher_repetition(languages=None),
    gopher_quality.gopher_quality(languages=None),
    c4.c4(languages=None),
    fineweb.fineweb(languages=None),
  ]
  duplicates = near_duplicates.near_duplicates()

  def through(stage, documents: list) -> list:
    results = map(stage, documents)
    return [
      r.document if isinstance(r, Counted) else r
      for r in results
      if not isinstance(r, Dropped)
    ]

  def alone(documents: list) -> list:
    kept = [through(stage, [d]) for d in documents for stage in filters]
    return [documents for documents in kept if documents]

  def different(documents: list) -> list:
    parts = duplicates.summarize(documents)
    found = [duplicates.combine(i, [part]) for i, part in enumerate(parts)]
    verdict = duplicates.conclude(found, [len(documents)]).verdicts[0]
    judge = duplicates.judge(verdict)
    results = [judge(i, d) for i, d in enumerate(documents)]
    return [r for r in results if not isinstance(r, Dropped)]

  def whole(documents: list) -> list:
    documents = through(page_text, documents)
    for stage in filters:
      documents = through(stage, documents)
    return different(documents)

  functions = (lambda ds: through(page_text, ds), alone, different, whole)
  return (
    lambda name, html: Document(name, "", html=html),
    Document,
    dict(zip(PARTS, functions, strict=True)),
  )


def their_side():
  """Returns the same as `our_side`, for datatrove."""
  from datatrove.data import Document
  from datatrove.pipeline import filters as f
  from datatrove.pipeline.dedup import minhash
  from datatrove.pipeline.extractors import Trafilatura
  from loguru import logger

  logger.remove()
  filters = [
    f.GopherRepetitionFilter(),
    f.GopherQualityFilter(),
    f.C4QualityFilter(),
    f.FineWebQualityFilter(),
  ]

  def extracted(documents: list) -> list:
    # Its default of one second is too short on a busy machine.
    return list(Trafilatura(timeout=60).run(documents))

  def alone(documents: list) -> list:
    kept = []
    for document in documents:
      for one in filters:
        # A filter may change the text of its input.
        kept += one.run([Document(text=document.text, id=document.id)])
    return kept

  def different(documents: list) -> list:
    with tempfile.TemporaryDirectory() as folder:
      signatures, buckets, removed = (
        os.path.join(folder, name) for name in ("sig", "bucket", "remove")
      )
      list(minhash.MinhashDedupSignature(signatures).run(documents) or ())
      config = minhash.MinhashConfig()
      for rank in range(config.num_buckets):
        step = minhash.MinhashDedupBuckets(signatures, buckets)
        step.run(None, rank, config.num_buckets)
      minhash.MinhashDedupCluster(buckets, removed).run(None, 0, 1)
      return list(minhash.MinhashDedupFilter(removed).run(documents))

  def whole(documents: list) -> list:
    documents = extracted(documents)
    for one in filters:
      documents = list(one.run(documents))
    return different(documents)

  functions = (extracted, alone, different, whole)
  return (
    lambda name, html: Document(text=html.decode("utf-8", "replace"), id=name),
    lambda name, text: Document(text=text, id=name),
    dict(zip(PARTS, functions, strict=True)),
  )


def work(side: str, pages_file: str) -> None:
  """Reads names of parts, one per line; answers (seconds, documents kept)."""
  make_page, make_text, parts = (our_side if side == "ours" else their_side)()
  pages = json.loads(pathlib.Path(pages_file).read_text())
  answers, sys.stdout = sys.stdout, sys.stderr
  for line in sys.stdin:
    part = line.strip()
    if part in ("extract", "whole"):
      documents = [
        make_page(name, base64.b64decode(html)) for name, html, _ in pages
      ]
    else:
      documents = [make_text(name, text) for name, _, text in pages if text]
    start = cpu_seconds()
    kept = parts[part](documents)
    print(
      json.dumps([cpu_seconds() - start, len(kept)]), file=answers, flush=True
    )


def html_pages(data: pathlib.Path) -> list[tuple[str, bytes, str]]:
  """Returns (name, HTML, text) of the pages."""
  import filters_agreement
  import trafilatura

  return [
    (f"{i} {name}", page, trafilatura.extract(page) or "")
    for i, (name, page) in enumerate(filters_agreement.raw_pages(data))
    if isinstance(page, bytes)
  ]


def measure(pages, python: str, repeats: int) -> dict:
  """Returns {(side, part): [(seconds, documents kept)]} of counted rounds."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "pages.json")
    with open(path, "w") as file:
      json.dump(
        [(n, base64.b64encode(h).decode(), t) for n, h, t in pages], file
      )
    workers = {
      side: subprocess.Popen(
        [interpreter, __file__, f"--worker={side}", f"--pages={path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
      )
      for side, interpreter in zip(SIDES, (sys.executable, python), strict=True)
    }
    found = {(side, part): [] for side in SIDES for part in PARTS}
    for turn in range(repeats + 1):
      for part in PARTS:
        for side, worker in workers.items():
          worker.stdin.write(f"{part}\n")
          worker.stdin.flush()
          answer = worker.stdout.readline()
          if not answer:
            sys.exit(f"{side} broke down at {part}")
          if turn:
            found[side, part].append(json.loads(answer))
    for worker in workers.values():
      worker.stdin.close()
      worker.wait()
  return found


def main() -> None:
  """Prints a table with the speed of both sides and their ratio by part."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", type=pathlib.Path)
  parser.add_argument("--datatrove_python")
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
  parser.add_argument("--pages", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    work(args.worker, args.pages)
    return
  if not (args.data and args.datatrove_python):
    parser.error("needs --data and --datatrove_python")
  pages = html_pages(args.data)
  texts = [text for _, _, text in pages if text]
  found = measure(pages, args.datatrove_python, args.repeats)
  print(
    f"{len(pages)} pages, {len(texts)} with text; medians of {args.repeats}"
  )
  print(
    f"{'part':17}{'side':11}{'kept':>6}{'seconds':>9}{'documents/s':>13}"
    f"{'MB/s':>8}{'ours/theirs':>13}"
  )
  for part in PARTS:
    whole = part in ("extract", "whole")
    count = len(pages if whole else texts)
    size = (
      sum(len(h) for _, h, _ in pages)
      if whole
      else sum(len(t.encode()) for t in texts)
    )
    ratios = [
      theirs[0] / ours[0]
      for ours, theirs in zip(
        *(found[side, part] for side in SIDES), strict=True
      )
    ]
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    for side in SIDES:
      seconds = statistics.median(s for s, _ in found[side, part])
      kept = found[side, part][0][1]
      note = f"{middle:8.2f} ({low:.2f}-{high:.2f})" if side == "ours" else ""
      print(
        f"{part:17}{side:11}{kept:6}{seconds:9.3f}{count / seconds:13.1f}"
        f"{size / seconds / 1e6:8.2f}{note}"
      )


if __name__ == "__main__":
  main()
