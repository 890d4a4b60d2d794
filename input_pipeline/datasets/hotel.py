"""ChnSentiCorp's hotel reviews: sentiment in Chinese, in five folds."""

import csv
import io

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github, text

_FOLDS = 5


def hotel() -> Dataset:
  """The data set; it has no official splits, so that review i tests fold i % 5.

  One review is empty and left out.
  """
  return Dataset(
    what="sentiment of 7,765 hotel reviews in Chinese (ChnSentiCorp)",
    licence="none stated (Tan Songbo: research data)",
    origin="https://github.com/SophonPlus/ChineseNlpCorpus",
    digests=github.DIGESTS,
    files=github.files(
      "SophonPlus/ChineseNlpCorpus",
      "a0b781d72158bde242c0626c9e354d2b328865ff",
      "cls_zh_hotel_reviews",
      {
        "datasets/ChnSentiCorp_htl_all/ChnSentiCorp_htl_all.csv": (
          2_904_858,
          "1d414b9c65caf3a836abdb4efded621968502ad3338e1a9d885ae131c86083f0",
        ),
      },
    ),
    holds=tuple(
      f"fold{fold}_{split}.jsonl"
      for fold in range(_FOLDS)
      for split in ("test", "train")
    ),
    write=_write,
    configs=("cls_hotel",),
  )


def _write(files: Files) -> Written:
  """{"text", "label"}: 0 is unfavourable, 1 is favourable."""
  content = files["ChnSentiCorp_htl_all.csv"].read_bytes().decode("utf-8-sig")
  rows = [
    {"text": row["review"].strip(), "label": int(row["label"])}
    for row in csv.DictReader(io.StringIO(content, newline=""))
  ]
  rows = [row for row in rows if row["text"]]
  for fold in range(_FOLDS):
    train = [row for i, row in enumerate(rows) if i % _FOLDS != fold]
    yield f"fold{fold}_train.jsonl", text.jsonl(train)
    yield f"fold{fold}_test.jsonl", text.jsonl(rows[fold::_FOLDS])
