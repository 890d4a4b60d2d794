"""The verb `train.generate`, on a tiny run."""

import os
import pathlib
import sys

import forkserver
import pytest

from configs.language import lm_shakespeare
from input_pipeline.tokenizers import kept
from train import build, loop, trained
from train.generation import streaming

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("run"))
  config = lm_shakespeare.get_config("smoke")
  config.evals, config.early_stopping = {}, {}
  config.checkpoint.keep_best = None
  list(loop.fit(build.run(config, folder, say=lambda line: None)))
  return folder


def generate(workdir, *flags):
  return forkserver.run(
    [sys.executable, "-m", "train.generate", f"--workdir={workdir}", *flags],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )


def texts(workdir, prompts, **options):
  """What the library writes, row r with seed r."""
  found = trained.load(workdir)
  encode = kept("char", workdir).encode
  pieces = streaming.stream(
    found,
    [encode(prompt) for prompt in prompts],
    [streaming.Options(seed=r, **options) for r in range(len(prompts))],
  )
  written = list(prompts)
  for piece in pieces:
    written[piece.row] += piece.text
  return written


@pytest.mark.slow
def test_one_text_is_printed_after_its_prompt(workdir):
  done = generate(
    workdir, "--prompt=ab", "--max_tokens=12", "--top_k=9", "--min_p=0.01"
  )
  assert done.returncode == 0, done.stderr
  options = {"max_tokens": 12, "temperature": 0.8, "top_k": 9, "min_p": 0.01}
  (wanted,) = texts(workdir, ["ab"], **options)
  assert done.stdout == wanted + "\n"
  last = done.stderr.splitlines()[-1]
  assert last.startswith("12 tokens in ") and "tokens/s" in last


@pytest.mark.slow
def test_texts_of_several_prompts_have_titles(workdir, tmp_path):
  file = tmp_path / "prompts.txt"
  file.write_text("b\n\nabc\n")
  flags = ("--max_tokens=6", "--num_samples=2", "--batch_size=4")
  done = generate(workdir, "--prompt=a", f"--prompts_file={file}", *flags)
  assert done.returncode == 0, done.stderr
  prompts = ["a", "a", "b", "b", "abc", "abc"]
  wanted = texts(workdir, prompts, max_tokens=6, temperature=0.8)
  names = [f"prompt {p}, text {s}" for p in (1, 2, 3) for s in (1, 2)]
  parts = [f"--- {n}\n{text}\n" for n, text in zip(names, wanted, strict=True)]
  for part in parts:
    assert part in done.stdout
  assert len(done.stdout) == sum(map(len, parts))


@pytest.mark.slow
def test_a_draft_leaves_the_greedy_text_as_it_is(workdir):
  flags = ("--prompt=ab", "--max_tokens=9", "--temperature=0")
  drafted = generate(workdir, *flags, f"--draft_workdir={workdir}")
  assert drafted.returncode == 0, drafted.stderr
  assert drafted.stdout == generate(workdir, *flags).stdout


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (("--prompt=",), "--prompt: is empty"),
    (("--prompt=猫",), "--prompt: character '猫' is not in the vocabulary"),
    (
      ("--prompt=a", "--stop="),
      "stop = ('',) is not a sequence of non-empty strings",
    ),
    (("--prompt=a", "--top_p=0"), "top_p = 0.0 is not above 0 and at most 1"),
    (("--prompts_file=none.txt",), "--prompts_file=none.txt: No such file"),
    (("--prompts_file=tests",), "--prompts_file=tests: Is a directory"),
    (("--draft_workdir=none",), "none: no config.json"),
    (("--temperature=-1",), "flag --temperature=-1"),
  ],
)
def test_a_mistake_is_one_line(workdir, flags, message):
  done = generate(workdir, *flags)
  assert done.returncode == 2
  line = done.stderr.splitlines()[-1]
  assert line.startswith("error: ") and message in line
  assert "Traceback" not in done.stderr
