"""Judges a data set: `python -m input_pipeline.judge --data=URI`.

Reads any source of input_pipeline/sources/__init__.py once, says a verdict for
each check, and leaves report.html and report.json in --output. With --label
classes are checked, with --against another split or source is compared, with
--date the later half with the earlier one.

Exit codes: 0 the data was judged, whatever the verdicts; 2 it cannot be; 3
what --fail_on names is not well.
"""

import importlib
import importlib.util
import inspect
import json
import math
import os
import re
import sys
from typing import NamedTuple

from absl import flags

from common import cli, storage

FLAGS = flags.FLAGS

# In the order of the report; the flag that each cannot do without.
CHECKS = {
  "schema": "",
  "missing": "",
  "ranges": "",
  "broken": "",
  "duplicates": "",
  "conflicts": "label",
  "leakage": "against",
  "balance": "label",
  "distribution": "",
  "drift": "against or --date",
  "outliers": "",
  "label_errors": "label",
}
# It trains models, so it has to be asked for.
_COSTLY = ("label_errors",)
_NOT_WELL = 3
_LIBRARIES = ("scipy", "sklearn", "cleanlab", "PIL", "pyarrow")
_FAIL_ON = {"none": (), "fail": ("fail",), "warn": ("warn", "fail")}


def define_flags() -> None:
  """The verb's own: not those of who imports this."""
  flags.DEFINE_string(
    "data", None, "A source, e.g. jsonl:FILES or folder:DIR.", required=True
  )
  flags.DEFINE_string(
    "split", None, "Which part; all of it, or train where --against is given."
  )
  flags.DEFINE_string(
    "against", None, "Another split, or another source, to compare it with."
  )
  flags.DEFINE_string("label", "", "The field of the label.")
  flags.DEFINE_string("date", "", "A field of dates, to tell drift in time.")
  flags.DEFINE_list(
    "ignore",
    [],
    "Fields that are not looked at, such as a number that tells records apart "
    "which are otherwise the same.",
  )
  flags.DEFINE_list(
    "checks",
    None,
    f"Which of: {', '.join(CHECKS)}. By default all that the other flags "
    f"allow, but {', '.join(_COSTLY)}, which trains models.",
  )
  flags.DEFINE_list(
    "fail_on",
    ["none"],
    f"Exit with {_NOT_WELL} where one of these checks is not ok; or `warn`: "
    "where any is not, `fail`: where any fails, or `none`.",
  )
  flags.DEFINE_string("output", None, "A folder; judged/NAME by default.")
  _define_settings()


def _define_settings() -> None:
  """What single checks are told."""
  flags.DEFINE_list(
    "ranges", [], "Possible values, as field:least:most, e.g. age:0:120."
  )
  flags.DEFINE_float(
    "level",
    0.01,
    "The chance of a false alarm of drift, over all features together.",
    0,
    1,
  )
  flags.DEFINE_float(
    "imbalance",
    3,
    "From how many times the rarest class on the commonest is told of.",
    1,
  )
  flags.DEFINE_integer(
    "max_records",
    None,
    "Of more records a sample is read, the same one each time; by default a "
    "million, or 100,000 of images or audio.",
    1,
  )
  flags.DEFINE_string(
    "label_model", None, "For label_errors: the model to predict labels with."
  )
  flags.DEFINE_list(
    "label_settings",
    [],
    "For label_errors: its other settings, as key=value; see "
    "input_pipeline/quality/label_errors.py.",
  )
  flags.DEFINE_integer(
    "folds", None, "For label_errors: how many parts of cross-validation.", 2
  )


class Asked(NamedTuple):
  """What the flags ask for."""

  uri: str
  split: str
  other: tuple[str, str] | None  # uri, split
  checks: list[str]
  output: str


def main(argv) -> int:
  """Judges, writes the reports, and returns the exit code."""
  del argv
  storage.check_local("--output", FLAGS.output)
  try:
    return _judge(_asked())
  except ValueError as error:
    raise cli.UserError(str(error)) from error
  except ModuleNotFoundError as error:
    if error.name not in _LIBRARIES:
      raise
    raise cli.UserError(
      f"judge needs {error.name}, which is not installed: pip install"
      " -e '.[judge]'"
    ) from error


def _asked() -> Asked:
  split = FLAGS.split or ("train" if FLAGS.against else "all")
  other = None
  if FLAGS.against:
    is_uri = re.match(r"[a-z]+:", FLAGS.against)
    other = (FLAGS.against, "all") if is_uri else (FLAGS.data, FLAGS.against)
  given = {"": True, "label": FLAGS.label, "against": FLAGS.against}
  given["against or --date"] = FLAGS.against or FLAGS.date
  checks = FLAGS.checks
  if checks is None:
    checks = [c for c, n in CHECKS.items() if given[n] and c not in _COSTLY]
  for check in checks:
    _known("checks", check, CHECKS)
    if not given[CHECKS[check]]:
      raise ValueError(f"--checks={check} needs --{CHECKS[check]}")
  for each in FLAGS.fail_on:
    _known("fail_on", each, (*_FAIL_ON, *CHECKS))
    if each in CHECKS and each not in checks:
      raise ValueError(f"--fail_on={each}: that check is not among --checks")
  output = FLAGS.output or os.path.join("judged", _name(FLAGS.data))
  return Asked(FLAGS.data, split, other, checks, output)


def _known(flag: str, name: str, valid) -> None:
  if name not in valid:
    raise ValueError(f"--{flag}={name}: valid: {', '.join(valid)}")


def _name(uri: str) -> str:
  """A folder's name out of a URI."""
  path = uri.partition(":")[2].partition("?")[0].rstrip("/")
  stem = os.path.splitext(os.path.basename(path))[0] or uri
  return re.sub(r"[^\w.-]+", "_", stem).strip("._") or "data"


def _ranges(given: list[str]) -> dict[str, tuple[float, float]]:
  found = {}
  for each in given:
    field, *ends = each.rsplit(":", 2)
    try:
      low, high = map(float, ends)
    except ValueError:
      raise ValueError(
        f"--ranges={each} is not field:least:most, such as age:0:120"
      ) from None
    found[field] = (low, high)
  return found


def _judge(asked: Asked) -> int:
  from input_pipeline.quality import dataset
  from input_pipeline.quality.finding import Settings

  settings = Settings(
    level=FLAGS.level, ranges=_ranges(FLAGS.ranges), imbalance=FLAGS.imbalance
  )
  data = None
  findings = []
  if set(asked.checks) - set(_COSTLY):
    options = dict(label=FLAGS.label, ignore=FLAGS.ignore)
    options |= dict(most=FLAGS.max_records, say=_progress())
    data = dataset.open_dataset(
      asked.uri, asked.split, date=FLAGS.date, **options
    )
    if asked.other:
      other = dataset.open_dataset(*asked.other, like=data, **options)
      data = data._replace(against=other)
  for check in asked.checks:
    if check in _COSTLY:
      found = _label_errors(asked)
    else:
      module = importlib.import_module(f"input_pipeline.quality.{check}")
      found = getattr(module, check)(data, settings)
    findings += found
    for each in found:
      line = cli.printable(each.line)
      print(f"{each.verdict:4}  {each.check:12}  {line}", flush=True)
  _write(asked, data, findings)
  return _code(findings)


def _progress():
  """Tells how far reading is, where someone looks on."""

  def say(done: int, whole: int) -> None:
    if sys.stderr.isatty():
      end = "\r" if done < whole else "\r\033[K"
      print(f"read {done:,} of {whole:,}", end=end, file=sys.stderr, flush=True)

  return say


def _label_errors(asked: Asked) -> list:
  module = "input_pipeline.quality.label_errors"
  if importlib.util.find_spec(module) is None:
    raise ValueError("--checks=label_errors: this copy of Tessera has no such")
  check = importlib.import_module(module).label_errors
  settings = {"model": FLAGS.label_model, "folds": FLAGS.folds}
  settings = {k: v for k, v in settings.items() if v is not None}
  given = {"uri": asked.uri, "split": asked.split, "label": FLAGS.label}
  given["output"] = asked.output
  valid = set(inspect.signature(check).parameters) - {*given, "say"}
  for each in FLAGS.label_settings:
    key, _, value = each.partition("=")
    if key not in valid:
      raise ValueError(
        f"--label_settings={each}: valid: {', '.join(sorted(valid))}"
      )
    settings[key] = _number(value)
  return check(**given, **settings)


def _number(text: str) -> int | float | str:
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      pass
  return text


def _code(findings: list) -> int:
  """0, or 3 where --fail_on says so."""
  for each in FLAGS.fail_on:
    for found in findings:
      bad = _FAIL_ON.get(each, ("warn", "fail"))
      if found.verdict in bad and each in (*_FAIL_ON, found.check):
        return _NOT_WELL
  return 0


def _write(asked: Asked, data, findings: list) -> None:
  from input_pipeline.quality.finding import worst
  from input_pipeline.reporting import page

  title = f"{asked.uri}, split {asked.split}"
  about = {
    "data": asked.uri,
    "split": asked.split,
    "against": asked.other
    and {"data": asked.other[0], "split": asked.other[1]},
    "label": FLAGS.label or None,
    "verdict": worst(*(each.verdict for each in findings)),
  }
  lines = []
  if data is not None:
    read, whole = len(data.indices) + data.bad_count, data.source.length
    about |= {"records": whole, "records_read": read, "bad": data.bad_count}
    lines.append(f"{whole:,} records of {len(data.columns)} fields")
    if read < whole:
      lines[-1] += f", of which a sample of {read:,} was judged"
  lines += [f"{f.verdict}: {f.check}: {f.line}" for f in findings]
  left = [check for check in CHECKS if check not in asked.checks]
  if left:
    lines.append(f"Not run: {', '.join(left)}")
  sections = [
    page.Section(f"{f.check}: {f.verdict}", [page.Text(f.line), *f.parts])
    for f in findings
  ]
  checks = [
    {**f._asdict(), "figures": dict(f.figures), "parts": None} for f in findings
  ]
  about["checks"] = [
    {key: value for key, value in each.items() if key != "parts"}
    for each in checks
  ]
  report = json.dumps(_plain(about), indent=2, ensure_ascii=False) + "\n"
  texts = {
    "report.html": page.render(title, lines, sections),
    "report.json": report,
  }
  _save(asked.output, texts)


def _save(folder: str, texts: dict[str, str]) -> None:
  try:
    os.makedirs(folder, exist_ok=True)
  except FileExistsError:
    raise ValueError(f"--output={folder} is not a folder") from None
  for name, text in texts.items():
    # A lone surrogate out of the data has no UTF-8.
    data = text.encode("utf-8", "backslashreplace")
    with open(os.path.join(folder, name), "wb") as file:
      file.write(data)
  print(f"report: {os.path.join(folder, 'report.html')}")


def _plain(value):
  """What JSON can hold: NaN and infinity become null, keys strings."""
  if isinstance(value, dict):
    return {str(key): _plain(each) for key, each in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(each) for each in value]
  if hasattr(value, "item"):  # NumPy's
    value = value.item()
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  return value


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main))
