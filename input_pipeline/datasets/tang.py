"""The first ten thousand of the Complete Tang Poems."""

import json

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github, text

_FOLDER = "全唐诗"
_FILES = {
  "poet.tang.0.json": (
    408_405,
    "4f88f429938082523cdc72a1612bd7a7c3e3f7a33f8192c61ae51340efc3c92d",
  ),
  "poet.tang.1000.json": (
    477_519,
    "6e703b8d8dcedbd6110f6d48d043665ca2131db2035a5bfcef5e59a19aeb6d75",
  ),
  "poet.tang.2000.json": (
    417_948,
    "ec28efa7e2ae9cdbbba09f0ed186e32ccae47a325ad1e5816b7ad56071c1665a",
  ),
  "poet.tang.3000.json": (
    453_811,
    "9e4ba2323752b6b9fbdba875cdbc6a26636fe0cabc85fd066370d4915952001f",
  ),
  "poet.tang.4000.json": (
    488_655,
    "b8a7946c879b9658a6c667a4c55f776fae7e5e00a17789ab06b274c1429afc66",
  ),
  "poet.tang.5000.json": (
    467_225,
    "a0306e6962cff01639ad9a00b042a201b8dec1f30fa5d768a7b112589887861e",
  ),
  "poet.tang.6000.json": (
    470_031,
    "982a21d2b15922b406911f1c825785054314c686da86b2155d7aebb362d22771",
  ),
  "poet.tang.7000.json": (
    474_558,
    "a6fb69d7b4343c904dc56ae5aae34facc2478d196b51c37ceba9d1e2f171b342",
  ),
  "poet.tang.8000.json": (
    574_248,
    "ac3848e95b02736168003863795de4474838c2d6a71a24ca2a4a280ea5177773",
  ),
  "poet.tang.9000.json": (
    476_882,
    "b99d6596e3a1fe1a661652383083f92d196b8baf4e461d087081d5e1e1b7a51f",
  ),
}


def tang() -> Dataset:
  """The data set; it has no official splits, and the last file validates."""
  return Dataset(
    what="10,008 Tang poems in traditional characters",
    licence="public domain; the repository's is MIT",
    origin="https://github.com/chinese-poetry/chinese-poetry",
    digests=github.DIGESTS,
    files=github.files(
      "chinese-poetry/chinese-poetry",
      "99ebbef7e1345c0985c44b9fd96a3f9e776f117b",
      "lm_zh_tang_poems",
      {f"{_FOLDER}/{name}": entry for name, entry in _FILES.items()},
    ),
    holds=("train.jsonl", "validation.jsonl"),
    write=_write,
    configs=("lm_zh_tang_poems",),
  )


def _write(files: Files) -> Written:
  """{"text", "title", "author"}, a couplet in each line of the text."""
  parts: dict[str, list[dict]] = {"train": [], "validation": []}
  last = list(_FILES)[-1]
  for name in _FILES:
    for poem in json.loads(files[name].read_text(encoding="utf-8")):
      content = "\n".join(poem["paragraphs"])
      if content:
        parts["validation" if name == last else "train"].append(
          {
            "text": content,
            "title": poem["title"],
            "author": poem["author"],
          }
        )
  for split, rows in parts.items():
    yield f"{split}.jsonl", text.jsonl(rows)
