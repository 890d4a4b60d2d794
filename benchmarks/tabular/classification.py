r"""Classical classifiers beside a config whose rows are the columns of a table.

  python -m input_pipeline.fetch adult
  python benchmarks/tabular/classification.py --config=tabular/adult

trains scikit-learn's logistic regression and histogram gradient boosting, with
their default settings, on the training split of the config, and prints their
accuracy on the split of its evaluator "val". Their features are the numbers and
categories of the config's columns, without bins.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def read(config):
  """Returns (x, label) of the training split and of "val"."""
  from input_pipeline.batching import pipeline

  rows = {**config.data.rows.to_dict(), "bins": 0}
  with tempfile.TemporaryDirectory() as folder:
    shared = dict(source=config.data.source, rows=rows, workdir=folder)
    parts = [
      pipeline.train(batch_size="all", **shared),
      pipeline.evaluation(
        split=config.evals.val.split, batch_size=2**15, **shared
      ),
    ]
    found = []
    for part in parts:
      batch = next(iter(part.batches(0)))
      real = batch["mask"] > 0
      found.append((batch["x"][real], batch["label"][real]))
  return found


def main() -> None:
  """Prints a line for each classifier."""
  from sklearn.ensemble import HistGradientBoostingClassifier
  from sklearn.linear_model import LogisticRegression

  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="tabular/adult")
  given = parser.parse_args()
  name = "configs." + given.config.replace("/", ".")
  train, val = read(importlib.import_module(name).get_config())
  print(f"{len(train[1]):,} rows of training, {len(val[1]):,} of validation")
  for model in (
    LogisticRegression(max_iter=1000),
    HistGradientBoostingClassifier(random_state=0),
  ):
    start = time.perf_counter()
    accuracy = 100 * model.fit(*train).score(*val)
    seconds = time.perf_counter() - start
    print(f"{type(model).__name__}: {accuracy:.2f} %, {seconds:.0f} s")


if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))
  main()
