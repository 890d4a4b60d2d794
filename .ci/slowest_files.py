"""Prints the ten test files that took longest, given reports of pytest."""

import collections
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).parents[1]
SHOWN = 10


def file_of(classname: str) -> str:
  """The path of "tests.train.loop_test" or of a class in it."""
  parts = classname.split(".")
  while parts and not (ROOT / ("/".join(parts) + ".py")).is_file():
    parts.pop()
  return "/".join(parts) + ".py" if parts else classname


def seconds_of(reports) -> collections.Counter:
  """{"FILE (REPORT)": seconds}, set-up and tear-down included."""
  found = collections.Counter()
  for report in map(pathlib.Path, reports):
    for case in ElementTree.parse(report).iter("testcase"):
      file = file_of(case.get("classname", ""))
      found[f"{file} ({report.stem})"] += float(case.get("time", 0))
  return found


if __name__ == "__main__":
  print(f"The {SHOWN} slowest files, in seconds of one worker:")
  for name, seconds in seconds_of(sys.argv[1:]).most_common(SHOWN):
    print(f"{seconds:7.1f}  {name}")
