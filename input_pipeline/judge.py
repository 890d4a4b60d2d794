"""Judges a data set: `python -m input_pipeline.judge --data=URI`.

Reads any source of input_pipeline/sources/ once, prints the verdict of each
check, and writes report.html and report.json to --output. --label adds checks
of the classes, --against compares the data with another split or source, and
--date compares its later half with the earlier one.

Exit codes: 0 if the data was judged, with any verdicts; 2 for wrong
arguments or data; 3 if a check that --fail_on names is not ok.
"""

import importlib
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Callable
from typing import NamedTuple

from absl import flags

from common import cli, names, storage

FLAGS = flags.FLAGS

# Each file of this package is a check.
_CHECKS = "input_pipeline.quality.checks"
_NOT_WELL = 3
_LIBRARIES = ("scipy", "sklearn", "cleanlab", "PIL", "pyarrow")
_FAIL_ON = {"none": (), "fail": ("fail",), "warn": ("warn", "fail")}


def define_flags() -> None:
  """Defines the flags, for a run as a program and not on import."""
  flags.DEFINE_string(
    "data",
    None,
    "The source to judge, such as jsonl:FILES or folder:DIR.",
    required=True,
  )
  flags.DEFINE_string(
    "split",
    None,
    "The split to judge. Default: all, or train if --against names a split.",
  )
  flags.DEFINE_string(
    "against", None, "Another split or source to compare the data with."
  )
  flags.DEFINE_string("label", "", "The field that holds the label.")
  flags.DEFINE_string("date", "", "A field of dates, to find drift over time.")
  flags.DEFINE_list(
    "ignore",
    [],
    "Fields to leave out, such as a record number, which would make equal "
    "records differ.",
  )
  flags.DEFINE_list(
    "checks",
    None,
    f"The checks to run, of: {', '.join(sorted(names.discover(_CHECKS)))}; "
    "all means every check that the other flags allow. By default that, "
    "except label_errors, which trains models.",
  )
  flags.DEFINE_list(
    "fail_on",
    ["none"],
    f"Exit with code {_NOT_WELL} if one of these checks is not ok. `warn` "
    "names every check that is not ok, `fail` every check that fails, and "
    "`none` no check.",
  )
  flags.DEFINE_string(
    "output", None, "The folder to write to. Default: judged/NAME."
  )
  _define_settings()


def _define_settings() -> None:
  """Settings of single checks."""
  flags.DEFINE_list(
    "ranges",
    [],
    "The valid values of fields as field:min:max, such as age:0:120.",
  )
  flags.DEFINE_float(
    "level",
    0.01,
    "The probability of a false alarm of drift, over all features together.",
    0,
    1,
  )
  flags.DEFINE_float(
    "imbalance",
    3,
    "Warn if the most frequent class is this many times as frequent as the "
    "rarest.",
    1,
  )
  flags.DEFINE_integer(
    "max_records",
    None,
    "The largest number of records to read; of larger data a sample is read, "
    "the same one each time. Default: 1,000,000, or 100,000 for images and "
    "audio.",
    1,
  )
  flags.DEFINE_string(
    "label_model", None, "For label_errors: the model that predicts labels."
  )
  flags.DEFINE_list(
    "label_settings",
    [],
    "For label_errors: its other settings as key=value; see "
    "input_pipeline/quality/checks/label_errors.py.",
  )
  flags.DEFINE_integer(
    "folds", None, "For label_errors: the number of folds. Default: 5.", 2
  )


class Check(NamedTuple):
  """A file of quality/checks/.

  needs: the flag without which it cannot run, or "".
  costly: whether it runs only where --checks names it.
  run: its function.
  """

  needs: str
  costly: bool
  run: Callable


class Asked(NamedTuple):
  """The settings that the flags give."""

  uri: str
  split: str
  other: tuple[str, str] | None  # uri, split
  checks: list[str]
  output: str


def main(argv) -> int:
  """Judges the data, writes the reports, and returns the exit code."""
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
  is_uri = FLAGS.against and re.match(r"[a-z]+:", FLAGS.against)
  # Another source leaves all of this one to be judged.
  split = FLAGS.split or ("train" if FLAGS.against and not is_uri else "all")
  other = None
  if FLAGS.against:
    other = (FLAGS.against, "all") if is_uri else (FLAGS.data, FLAGS.against)
  given = {"": True, "label": FLAGS.label, "against": FLAGS.against}
  given["against or --date"] = FLAGS.against or FLAGS.date
  valid = known_checks()
  checks = FLAGS.checks
  if checks is None or checks == ["all"]:
    costly = checks is not None
    checks = [
      n for n, c in valid.items() if given[c.needs] and (costly or not c.costly)
    ]
  for check in checks:
    _known("checks", check, valid)
    if not given[valid[check].needs]:
      raise ValueError(f"--checks={check} needs --{valid[check].needs}")
  for each in FLAGS.fail_on:
    _known("fail_on", each, (*_FAIL_ON, *valid))
    if each in valid and each not in checks:
      raise ValueError(f"--fail_on={each}: the check is not among --checks")
  output = FLAGS.output or os.path.join("judged", _name(FLAGS.data))
  return Asked(FLAGS.data, split, other, checks, output)


def known_checks() -> dict[str, Check]:
  """{name: Check} of all checks, in the order of the report."""
  found = {}
  for name, path in names.discover(_CHECKS).items():
    module = importlib.import_module(path)
    needs, costly = getattr(module, "NEEDS", ""), getattr(module, "COSTLY", 0)
    found[name] = (
      module.ORDER,
      Check(needs, bool(costly), getattr(module, name)),
    )
  ordered = sorted(found, key=lambda name: (found[name][0], name))
  return {name: found[name][1] for name in ordered}


def _known(flag: str, name: str, valid) -> None:
  if name not in valid:
    raise ValueError(f"--{flag}={name} is unknown; valid: {', '.join(valid)}")


def _name(uri: str) -> str:
  """The name of the folder for a URI's report."""
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
        f"--ranges={each} is not field:min:max, such as age:0:120"
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
  valid = known_checks()
  if not all(valid[name].costly for name in asked.checks):
    options = dict(label=FLAGS.label, ignore=FLAGS.ignore)
    options |= dict(most=FLAGS.max_records, say=_progress())
    data = dataset.open_dataset(
      asked.uri, asked.split, date=FLAGS.date, **options
    )
    if asked.other:
      other = dataset.open_dataset(*asked.other, like=data, **options)
      data = data._replace(against=other)
    print(_judged(data), flush=True)
  for name in asked.checks:
    check = valid[name]
    if check.costly:
      found = check.run(**_own_settings(check, asked))
    else:
      found = check.run(data, settings)
    findings += found
    for each in found:
      line = cli.printable(each.line)
      print(f"{each.verdict:4}  {each.check:12}  {line}", flush=True)
  _write(asked, data, findings)
  return _code(findings)


def _judged(data) -> str:
  """A line with the number of records of the data, and of the other data."""
  said = []
  for each in filter(None, (data, data.against)):
    read, whole = len(each.indices) + each.bad_count, each.source.length
    some = f"{read:,} of " if read < whole else ""
    said.append(f"{some}{whole:,} records of {each.uri}, split {each.split}")
    if each.source.note:
      said[-1] += f" ({each.source.note})"
  return cli.printable(f"data: {', against '.join(said)}")


def _progress():
  """Prints the progress of reading, on a terminal only."""

  def say(done: int, whole: int) -> None:
    if sys.stderr.isatty():
      end = "\r" if done < whole else "\r\033[K"
      print(f"read {done:,} of {whole:,}", end=end, file=sys.stderr, flush=True)

  return say


def _own_settings(check: Check, asked: Asked) -> dict:
  """The keyword arguments of a costly check, which reads the data itself."""
  settings = {"model": FLAGS.label_model, "folds": FLAGS.folds}
  settings = {k: v for k, v in settings.items() if v is not None}
  given = {"uri": asked.uri, "split": asked.split, "label": FLAGS.label}
  given["output"] = asked.output
  valid = set(inspect.signature(check.run).parameters) - {*given, "say"}
  for each in FLAGS.label_settings:
    key, _, value = each.partition("=")
    if key not in valid:
      raise ValueError(
        f"--label_settings={each} is unknown; valid: {', '.join(sorted(valid))}"
      )
    settings[key] = _number(value)
  return given | settings


def _number(text: str) -> int | float | str:
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      pass
  return text


def _code(findings: list) -> int:
  """The exit code: 3 if a check named by --fail_on is not ok, else 0."""
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
    lines += [data.source.note] if data.source.note else []
  lines += [f"{f.verdict}: {f.check}: {f.line}" for f in findings]
  left = [name for name in known_checks() if name not in asked.checks]
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
    # A lone surrogate in the data cannot be encoded as UTF-8.
    data = text.encode("utf-8", "backslashreplace")
    with open(os.path.join(folder, name), "wb") as file:
      file.write(data)
  print(f"report: {os.path.join(folder, 'report.html')}")


def _plain(value):
  """The value as JSON holds it: keys are strings, NaN and infinity null."""
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
