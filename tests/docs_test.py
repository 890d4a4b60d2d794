"""The documentation is that of this code: reference, errors, commands."""

import difflib
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
# A line that XLA prints, not this code.
NOT_OURS = ("RESOURCE_EXHAUSTED",)


def test_the_reference_is_current():
  found = subprocess.run(
    [sys.executable, "docs/generate.py", "--check"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stdout + found.stderr


def test_a_stale_page_is_noticed(monkeypatch, capsys):
  monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
  import generate

  current = (DOCS / "reference" / "exit_codes.md").read_text()
  assert "| 85 |" in current
  pages = {path.name: path.read_text() for path in DOCS.glob("reference/*.md")}
  changed = {**pages, "exit_codes.md": current.replace("| 85 |", "| 86 |")}
  monkeypatch.setattr(generate, "pages", lambda: changed)
  monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
  assert generate.main() == 1
  assert "exit_codes.md is stale" in capsys.readouterr().out
  assert (DOCS / "reference" / "exit_codes.md").read_text() == current


def test_error_lines_are_those_of_the_code(monkeypatch):
  monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
  import source_text

  known = source_text.strings()
  text = (DOCS / "troubleshooting.md").read_text()
  lines = re.findall(r"^`(.+)`\n:", text, re.MULTILINE)
  assert len(lines) > 40
  stale = {
    line: difflib.get_close_matches(line, known, n=1, cutoff=0.3)
    for line in lines
    if line not in NOT_OURS and not any(line in each for each in known)
  }
  assert not stale, f"docs/troubleshooting.md: line -> nearest now: {stale}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
  for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
    if re.match(r"https?:|#", target):
      continue
    assert (page.parent / target.partition("#")[0]).exists(), target


def commands(page: pathlib.Path):
  """(verb, arguments) of each `python -m` in a page's blocks of bash."""
  text = page.read_text()
  for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
    for line in block.replace("\\\n", " ").splitlines():
      for part in re.split(r"&&|; do|\| ", line):
        found = re.search(
          r"python -m ((?:train|input_pipeline)\.\w+)(.*)", part
        )
        if found:
          rest = found[2].partition("  #")[0].partition(" < ")[0]
          yield found[1], shlex.split(rest.strip("; "))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_name_verbs_flags_and_configs_that_exist(page):
  reference = (DOCS / "reference" / "verbs.md").read_text()
  sections = dict(
    re.findall(
      r"^## `python -m (\S+)`\n(.*?)(?=^## |\Z)", reference, re.M | re.S
    )
  )
  configs = {path.stem for path in (ROOT / "configs").rglob("*.py")}
  for verb, arguments in commands(page):
    assert verb in sections, verb
    for each in arguments:
      name, _, value = each.partition("=")
      if name == "--config":
        stem = pathlib.Path(value.partition(":")[0]).stem
        assert stem in {*configs, "NAME", "my_first", "…"}, each
      elif name.startswith("--") and not name.startswith("--config."):
        assert f"`{name}`" in sections[verb], f"{verb} {each}"


def test_readme_is_short_and_has_one_test_command():
  lines = (ROOT / "README.md").read_text().splitlines()
  assert len(lines) <= 150
  first = next(line for line in lines if "pytest" in line)
  assert first.startswith("python3 -m venv") and "-m pytest" in first


def test_pictures_are_small():
  for path in (DOCS / "pictures").iterdir():
    assert path.stat().st_size <= 300 * 1024, path


@pytest.mark.slow
def test_a_run_leaves_only_files_that_are_documented(tmp_path):
  from train.workdir import FILES

  workdir = tmp_path / "run"
  command = ["--config=lm_stdlib:smoke", f"--workdir={workdir}"]
  subprocess.run(
    [
      *(sys.executable, "-m", "train.main", *command),
      *("--config.log_examples=True", "--config.checkpoint.keep_best=val/loss"),
    ],
    cwd=ROOT,
    check=True,
    capture_output=True,
  )
  left = {path.name for path in workdir.iterdir()}
  assert {"config.json", "metrics.jsonl", "checkpoints", "curves.png"} <= left
  assert {"examples.jsonl", "samples"} <= left
  patterns = [name.replace("*", ".*") for name in FILES]
  for name in left:
    assert any(re.fullmatch(p, name) for p in patterns), name
