"""A stand-in gcloud that plays scenarios and records how it was called."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
WHERE = ["--zone=us-west4-a", "--project=p"]
ARGS = ["--config=configs/lm.py", "--workdir=bucket/a"]
HOSTILE = [
  "--config=configs/lm.py",
  '--workdir=bucket/it\'s a "run"',
  "--config.data.source=text:$HOME/*.txt;`id`\\",
  "--config.model.name=ä|b&c(d)<e>!f",
  "--config.note=",
  "-2",
]

# Records its call; answers with the next of answers[kind of call], the last
# one again where they are used up: [exit code, stdout] or stdout.
GCLOUD = """#!{python} -SE
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
argv = sys.argv[1:]
kind = " ".join(argv[2:4])
command = "".join(a for a in argv if a.startswith("--command="))
for word in ("install", "on_vm/train"):
  if word in command:
    kind += " " + word.split("/")[-1]
log = os.path.join(here, "calls.jsonl")
earlier = [json.loads(l)[0] for l in open(log)] if os.path.exists(log) else []
with open(log, "a") as file:
  file.write(json.dumps([kind, argv]) + "\\n")
answers = json.load(open(os.path.join(here, "answers.json"))).get(kind, [""])
answer = answers[min(earlier.count(kind), len(answers) - 1)]
code, said = answer if isinstance(answer, list) else (0, answer)
print(said, file=sys.stderr if code else sys.stdout)
sys.exit(code)
"""


def script(path: pathlib.Path, text: str) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)
  return path


def git(repository, *arguments) -> str:
  return subprocess.run(
    ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments],
    cwd=repository,
    check=True,
    capture_output=True,
    text=True,
  ).stdout


class Stage:
  """A checkout with the scripts, a stand-in gcloud, and what it recorded."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self.checkout = path / "checkout"
    self.bin = path / "bin"
    shutil.copytree(ROOT / "tpu_scripts", self.checkout / "tpu_scripts")
    (self.checkout / "kept.txt").write_text("committed\n")
    (self.checkout / "gone.txt").write_text("deleted later\n")
    git(self.checkout, "init", "--quiet")
    git(self.checkout, "add", ".")
    git(self.checkout, "commit", "--quiet", "--message=first")
    script(self.bin / "gcloud", GCLOUD.format(python=sys.executable))

  def env(self, **more) -> dict[str, str]:
    return {
      "PATH": f"{self.bin}:{os.environ['PATH']}",
      "HOME": str(self.path),
      "PAUSE": "0",
      **more,
    }

  def play(self, name, *arguments, named=True, answers=None, **env):
    """Runs a script; its calls of gcloud are `self.calls` afterwards."""
    (self.bin / "answers.json").write_text(json.dumps(answers or {}))
    (self.bin / "calls.jsonl").unlink(missing_ok=True)
    start = ["--name=a", *WHERE] if named else []
    return subprocess.run(
      [self.checkout / "tpu_scripts" / name, *start, *arguments],
      env=self.env(**env),
      cwd=self.path,
      capture_output=True,
      text=True,
      timeout=60,
    )

  @property
  def calls(self) -> list[tuple[str, list[str]]]:
    log = self.bin / "calls.jsonl"
    if not log.exists():
      return []
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]

  @property
  def kinds(self) -> list[str]:
    return [kind for kind, _ in self.calls]

  def command(self, kind) -> str:
    """What the last call of that kind had the workers do."""
    argv = [argv for this, argv in self.calls if this == kind][-1]
    return next(a for a in argv if a.startswith("--command="))[10:]
