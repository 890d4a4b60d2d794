"""The verb `judge`: its lines, reports and exit codes."""

import html.parser
import importlib
import json
import os
import pathlib
import random
import subprocess
import sys
import types

import forkserver
import pytest

ROOT = pathlib.Path(__file__).parents[3]
HOSTILE = "</p><script src=http://evil.example/x.js></script>\x1b[2J\u202eq"


def judge(folder, *flags):
  done = forkserver.run(
    [sys.executable, "-m", "input_pipeline.judge", *flags],
    cwd=folder,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert "Traceback" not in done.stderr, done.stderr
  return done


def write(path, records):
  path.write_text("".join(json.dumps(r) + "\n" for r in records))
  return f"jsonl:{path}"


def rows(n=300, seed=0):
  draw = random.Random(seed)
  return [
    {"age": draw.random(), "tree": draw.choice("abc"), "label": i % 2}
    for i in range(n)
  ]


def test_a_report_of_hostile_data(tmp_path):
  records = rows()
  for i in range(0, 60, 10):
    records[i]["tree"] = HOSTILE
    records[i][HOSTILE] = 1
  records = [{HOSTILE: 0, **record} for record in records]
  uri = write(tmp_path / "a.jsonl", [*records, records[0]])
  done = judge(tmp_path, f"--data={uri}", "--label=label", "--fail_on=warn")
  assert done.returncode == 3, done.stderr
  assert "\x1b" not in done.stdout and "\u202e" not in done.stdout
  assert "warn  duplicates    1 record of 301" in done.stdout

  text = (tmp_path / "judged" / "a" / "report.html").read_text()
  tags, links = [], []

  class Reader(html.parser.HTMLParser):
    def handle_starttag(self, tag, attrs):
      tags.append(tag)
      links.extend(v for k, v in attrs if k in ("src", "href", "srcset"))

  Reader().feed(text)
  assert "script" not in tags and "link" not in tags
  assert links and all(v.startswith(("#", "data:image/")) for v in links)
  assert "\x1b" not in text and "\u202e" not in text
  assert "U+202E" in text and "&lt;script" in text

  report = json.loads((tmp_path / "judged" / "a" / "report.json").read_text())
  assert report["verdict"] == "warn"
  assert report["records"] == report["records_read"] == 301
  found = {each["check"]: each for each in report["checks"]}
  assert found["duplicates"]["figures"]["repeats"] == 1
  assert found["schema"]["figures"]["fields"]["label"]["kind"] == "category"
  assert [each["check"] for each in report["checks"]] == [
    "schema",
    "missing",
    "ranges",
    "broken",
    "duplicates",
    "conflicts",
    "balance",
    "distribution",
    "outliers",
    "class_names",
  ]


def test_the_same_data_gives_the_same_bytes(tmp_path):
  uri = write(tmp_path / "a.jsonl", rows())
  texts = []
  for name in ("one", "two"):
    flags = [f"--data={uri}", "--split=train", "--against=test"]
    done = judge(tmp_path, *flags, f"--output={name}", "--label=label")
    assert done.returncode == 0, done.stderr
    texts.append(
      [
        (tmp_path / name / each).read_bytes()
        for each in ("report.html", "report.json")
      ]
    )
  assert texts[0] == texts[1]


def judge_module():
  return importlib.import_module("input_pipeline.judge")


@pytest.fixture
def asked(monkeypatch):
  """(flag values) -> what they ask for, without a process of its own."""
  module = judge_module()

  def ask(**given):
    values = dict(data="jsonl:a", split=None, against=None, label="", date="")
    values |= dict(checks=None, fail_on=["none"], output=None)
    values |= given
    monkeypatch.setattr(module, "FLAGS", types.SimpleNamespace(**values))
    return module._asked()

  return ask


def test_checks_are_those_that_the_flags_allow(asked):
  alone = asked().checks
  assert "leakage" not in alone and "balance" not in alone
  assert "label_errors" not in asked(label="y", against="test").checks
  every = asked(label="y", against="test", checks=["all"]).checks
  assert set(every) == set(judge_module().known_checks())
  assert set(asked(checks=["all"]).checks) == set(alone)
  assert set(asked(label="y", against="test").checks) - set(alone) == {
    "conflicts",
    "balance",
    "leakage",
    "drift",
  }
  assert "drift" in asked(date="day").checks


def test_what_is_compared(asked):
  assert asked().split == "all"
  found = asked(against="test[:50%]")
  assert (found.split, found.other) == ("train", ("jsonl:a", "test[:50%]"))
  # Another source is compared with all of this one.
  found = asked(against="jsonl:b")
  assert (found.split, found.other) == ("all", ("jsonl:b", "all"))
  assert asked(data="tfds:x?data_dir=/d").output == "judged/x"
  assert asked(data="jsonl:/a/b*.jsonl.gz").output == "judged/b_.jsonl"
  assert asked(data="stdlib:").output == "judged/stdlib"


@pytest.mark.parametrize(
  ("given", "told"),
  [
    ({"checks": ["leakge"]}, "--checks=leakge is unknown; valid: schema, "),
    ({"checks": ["leakage"]}, "--checks=leakage needs --against"),
    ({"checks": ["drift"]}, "--checks=drift needs --against or --date"),
    ({"checks": ["label_errors"]}, "--checks=label_errors needs --label"),
    (
      {"fail_on": ["bad"]},
      "--fail_on=bad is unknown; valid: none, fail, warn, schema",
    ),
    ({"fail_on": ["drift"]}, "--fail_on=drift: the check is not among"),
  ],
)
def test_wrong_flags_are_told_in_one_line(asked, given, told):
  with pytest.raises(ValueError, match="^--") as error:
    asked(**given)
  assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("flags", "told"),
  [
    (["--data=jsonl:none.jsonl"], "none.jsonl"),
    (["--data=jsonl:a.jsonl", "--label=x"], "--label=x: jsonl:a.jsonl has no"),
    (["--data=jsonl:a.jsonl", "--ranges=age:0"], "--ranges=age:0 is not"),
  ],
)
def test_what_a_user_gets_wrong_is_one_line(tmp_path, flags, told):
  write(tmp_path / "a.jsonl", rows())
  done = judge(tmp_path, *flags)
  assert done.returncode == 2
  assert done.stderr.count("\n") == 1
  assert done.stderr.startswith("error: ") and told in done.stderr


def finding(check, verdict):
  return types.SimpleNamespace(check=check, verdict=verdict)


@pytest.mark.parametrize(
  ("fail_on", "verdicts", "code"),
  [
    (["none"], ("fail", "fail"), 0),
    (["fail"], ("warn", "ok"), 0),
    (["fail"], ("ok", "fail"), 3),
    (["warn"], ("ok", "ok"), 0),
    (["warn"], ("ok", "warn"), 3),
    (["drift"], ("ok", "fail"), 0),
    (["drift"], ("warn", "ok"), 3),
    (["drift", "schema"], ("ok", "warn"), 3),
  ],
)
def test_exit_codes(monkeypatch, fail_on, verdicts, code):
  module = importlib.import_module("input_pipeline.judge")
  monkeypatch.setattr(module, "FLAGS", types.SimpleNamespace(fail_on=fail_on))
  names = ("drift", "schema")
  found = [finding(*pair) for pair in zip(names, verdicts, strict=True)]
  assert module._code(found) == code


def test_each_check_names_what_it_needs():
  found = importlib.import_module("input_pipeline.judge").known_checks()
  assert (
    list(found)
    == (
      "schema missing ranges broken duplicates conflicts leakage balance"
      " distribution drift outliers boxes_outside duplicate_boxes tiny_objects"
      " class_names mask_sizes label_errors"
    ).split()
  )
  assert {name: c.needs for name, c in found.items() if c.needs} == {
    "conflicts": "label",
    "leakage": "against",
    "balance": "label",
    "drift": "against or --date",
    "label_errors": "label",
  }
  assert [name for name, c in found.items() if c.costly] == ["label_errors"]


def test_a_costly_check_is_given_its_settings(monkeypatch):
  module = judge_module()

  def label_errors(*, uri, split, label, output, folds=5, epochs=1, say=None):
    return uri, split, label, output, folds, epochs, say

  check = module.Check("label", True, label_errors)
  values = types.SimpleNamespace(
    label="y", label_model=None, folds=4, label_settings=["epochs=3"]
  )
  monkeypatch.setattr(module, "FLAGS", values)
  asked = module.Asked("idx:a", "train", None, ["label_errors"], "out")
  found = check.run(**module._own_settings(check, asked))
  assert found == ("idx:a", "train", "y", "out", 4, 3, None)
  values.label_settings = ["epoch=3"]
  with pytest.raises(
    ValueError, match="epoch=3 is unknown; valid: epochs, folds"
  ):
    module._own_settings(check, asked)


def test_a_missing_extra_is_one_line(tmp_path):
  write(tmp_path / "a.jsonl", rows())
  code = (
    "import sys; sys.modules['scipy'] = None;"
    "sys.argv = ['x', '--data=jsonl:a.jsonl'];"
    "from input_pipeline import judge; from common import cli;"
    "judge.define_flags();"
    "sys.exit(cli.run(judge.main))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.strip() == (
    "error: judge needs scipy, which is not installed: pip install"
    " -e '.[judge]'"
  )
