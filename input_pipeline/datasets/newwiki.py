"""SquadShifts' new Wikipedia set: questions in the format of SQuAD 1.1."""

import hashlib

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github, text


def newwiki() -> Dataset:
  """The data set, published for testing alone, split here by paragraphs."""
  return Dataset(
    what="7,938 questions on Wikipedia, as SQuAD's (Miller et al. 2020)",
    licence="not stated in the repository (CC BY 4.0, unverified)",
    origin="https://github.com/modestyachts/squadshifts-website",
    digests=github.DIGESTS,
    files=github.files(
      "modestyachts/squadshifts-website",
      "b7cc4d50af791c36c49417fb94dd739d6a9e7bef",
      "qa_squadshifts_newwiki",
      {
        "datasets/new_wiki_v1.0.json": (
          3_607_393,
          "1d50a0ca4cdab88d038b52ea8a2d0510af6038d7f41a0a256b9659237769d0ee",
        ),
      },
    ),
    holds=("train.jsonl", "validation.jsonl"),
    write=_write,
    configs=("qa_newwiki",),
  )


def _write(files: Files) -> Written:
  """{"id", "title", "context", "question", "answers"}.

  A paragraph whose SHA-1 is a multiple of ten validates.
  """
  parts: dict[str, list[dict]] = {"train": [], "validation": []}
  for row in text.questions(files["new_wiki_v1.0.json"]):
    digest = hashlib.sha1(row["context"].encode(), usedforsecurity=False)
    held_out = int(digest.hexdigest(), 16) % 10 == 0
    parts["validation" if held_out else "train"].append(row)
  for split, rows in parts.items():
    yield f"{split}.jsonl", text.jsonl(rows)
