"""MLflow."""

import os
import pathlib
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from train.writers.parts import run_id, writer

# MLflow's limits: parameters per request, and characters per value.
_PARAMS, _VALUE = 100, 6000


def mlflow(
  workdir: str,
  config: Mapping[str, Any],
  *,
  tracking_uri: str | None = None,
  experiment: str = "Default",
  histograms_every: int = 0,
) -> writer.Writer:
  """Logs scalars, images, text and histograms to one run per workdir.

  The run's id is kept in WORKDIR/mlflow_run_id, and a resumed run continues the
  same MLflow run. MLflow only appends: for steps that a resumed run repeats,
  the values that were logged first remain and are not logged again. Histograms
  are JSON artifacts, since MLflow has no charts for them.

  Args:
    workdir: its last part is the name of the run.
    config: logged as parameters, "model.dim" and so on.
    tracking_uri: the URI of the server or database; None uses MLflow's default
      (MLFLOW_TRACKING_URI).
    experiment: the name of the experiment, which is created if necessary.
    histograms_every: the number of steps between histograms of parameters and
      gradients; 0, the default, writes none.

  Raises:
    UserError: the library is not installed.
  """
  writer.need("mlflow")
  opened: dict[str, Any] = {}
  last: dict[str, int] = {}  # the last step logged of each metric

  def start(step):
    del step  # query which steps MLflow already has
    if opened:
      return  # the run rolled back to a checkpoint
    # By default MLflow would hold up the training for minutes, again and again.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri)
    found = run_id.read(workdir, "mlflow")
    if found is None:
      found = _created(client, experiment, workdir, config)
    else:
      client.update_run(found, status="RUNNING")
      for key in client.get_run(found).data.metrics:
        history = client.get_metric_history(found, key)
        last[key] = max(each.step for each in history)
    opened["client"], opened["id"] = client, found

  def write(step, scalars):
    from mlflow.entities import Metric

    now = int(1000 * time.time())
    new = {_key(k): v for k, v in scalars.items()}
    new = {k: v for k, v in new.items() if step > last.get(k, -1)}
    rows = [Metric(key, float(value), now, step) for key, value in new.items()]
    if rows:
      opened["client"].log_batch(opened["id"], metrics=rows)
      last.update(dict.fromkeys(new, step))

  def histograms(step, found):
    content = {tag: _plain(h) for tag, h in found.items()}
    path = f"histograms/{step:07d}.json"
    opened["client"].log_dict(opened["id"], content, path)

  def images(step, found):
    for tag, image in found.items():
      opened["client"].log_image(
        opened["id"], np.asarray(image), key=_key(tag), step=step
      )

  def text(step, found):
    for tag, content in found.items():
      path = f"text/{_key(tag)}/{step:07d}.txt"
      opened["client"].log_text(opened["id"], content, path)

  def close():
    if opened:
      client, found = opened.pop("client"), opened.pop("id")
      client.set_terminated(found, _status(sys.exc_info()[0]))

  return writer.Writer(
    start, write, histograms, images, text, close, histograms_every
  )


def _created(client, experiment, workdir, config) -> str:
  """Creates a run with the config as parameters; stores and returns its id."""
  from mlflow.entities import Param

  known = client.get_experiment_by_name(experiment)
  where = known.experiment_id if known else client.create_experiment(experiment)
  name = pathlib.Path(workdir).resolve().name
  found = client.create_run(where, run_name=name).info.run_id
  run_id.write(workdir, "mlflow", found)
  params = [Param(k, str(v)[:_VALUE]) for k, v in _flat(config).items()]
  for i in range(0, len(params), _PARAMS):
    client.log_batch(found, params=params[i : i + _PARAMS])
  return found


def _status(raised: type[BaseException] | None) -> str:
  """Returns how a run ended, from the exception that is propagating."""
  if raised is None:
    return "FINISHED"
  return "FAILED" if issubclass(raised, Exception) else "KILLED"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  found: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, Mapping) and value:
      found |= _flat(value, f"{prefix}{_key(key)}.")
    else:
      found[f"{prefix}{_key(key)}"] = value
  return found


def _key(name: str) -> str:
  """Returns a name without the characters that MLflow rejects."""
  return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)


def _plain(found) -> dict[str, Any]:
  return {
    "counts": np.asarray(found.counts).tolist(),
    "low": float(found.low),
    "high": float(found.high),
  }
