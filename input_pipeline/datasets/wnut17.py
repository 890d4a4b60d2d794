"""WNUT-17: new and rare named entities in social media."""

import pathlib

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github, text


def wnut17() -> Dataset:
  """The data set, in the official splits."""
  return Dataset(
    what="5,690 sentences with six types of entities (Derczynski et al. 2017)",
    licence="CC BY 4.0",
    origin="https://github.com/leondz/emerging_entities_17",
    digests=github.DIGESTS,
    files=github.files(
      "leondz/emerging_entities_17",
      "e52a2d2a71ac1a051ca2d532eef28653c5c02603",
      "ner_wnut17",
      {
        "wnut17train.conll": (
          493_781,
          "731820e13f71af324c6b55a1575ec2ce59fbaa2a0806f8f0400b98d56cd6a7a5",
        ),
        "emerging.dev.conll": (
          114_749,
          "e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8",
        ),
        "emerging.test.annotated": (
          192_425,
          "2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0",
        ),
      },
    ),
    holds=("test.jsonl", "train.jsonl", "validation.jsonl"),
    write=_write,
    configs=("ner_wnut17",),
  )


def _write(files: Files) -> Written:
  for split, name in (
    ("train", "wnut17train.conll"),
    ("validation", "emerging.dev.conll"),
    ("test", "emerging.test.annotated"),
  ):
    yield f"{split}.jsonl", text.jsonl(_sentences(files[name]))


def _sentences(path: pathlib.Path) -> list[dict]:
  """{"words", "tags"}, of a word and its tag a line, an empty one between."""
  rows: list[dict] = []
  words: list[str] = []
  tags: list[str] = []
  for line in [*path.read_text(encoding="utf-8").split("\n"), ""]:
    fields = line.strip().split("\t")
    if len(fields) >= 2:
      words.append(fields[0])
      tags.append(fields[-1])
    elif words:
      rows.append({"words": words, "tags": tags})
      words, tags = [], []
  return rows
