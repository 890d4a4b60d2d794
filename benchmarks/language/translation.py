"""BLEU and chrF of a translation run on a test set, by greedy and beam search.

Prints a table of the decoding method, BLEU and chrF (sacrebleu's, with its
signature), and the seconds for the entire split, excluding compilation. The
translations are in WORKDIR/benchmark_<beams>/hypotheses.txt.

  python benchmarks/language/translation.py --workdir=RUN \
    --source=jsonl:data/multi30k/test.jsonl --reference=en
"""

import argparse
import json
import pathlib
import time

from train import build, trained


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--source", required=True, help="URI of the test set")
  parser.add_argument("--reference", default="target", help="its field")
  parser.add_argument("--beams", type=int, nargs="+", default=[0, 4, 5])
  parser.add_argument("--alpha", type=float, default=0.6)
  parser.add_argument("--step", type=int, default=None)
  options = parser.parse_args()

  found = trained.load(options.workdir, options.step)
  print(f"step {found.step}; alpha {options.alpha}")
  print("| beams | BLEU | chrF | seconds |\n|---|---|---|---|")
  signatures = {}
  for beams in options.beams:
    key = f"benchmark_{beams}"
    found.parts.config["evals"][key] = dict(
      name="text_generation",
      source=options.source,
      split="all",
      reference=options.reference,
      beams=beams,
      alpha=options.alpha,
    )
    evaluate = build.evaluator(found.parts, key, options.workdir, print)
    evaluate(found.variables, found.step)  # compiles
    start = time.perf_counter()
    figures = evaluate(found.variables, found.step)
    seconds = time.perf_counter() - start
    path = pathlib.Path(options.workdir) / key / "figures.json"
    signatures |= json.loads(path.read_text())["signatures"]
    name = beams or "greedy"
    print(
      f"| {name} | {figures['bleu']:.2f} | {figures['chrf']:.2f} |"
      f" {seconds:.1f} |",
      flush=True,
    )
  for name, signature in signatures.items():
    print(f"{name}: {signature}")


if __name__ == "__main__":
  main()
