"""Writes small public data sets of text as JSON lines, as configs read them.

  python benchmarks/data/prepare_language.py --shared=../shared/data \
      --output=data

writes under data/: sst2/, trec/ and hotel/ {"text", "label"}; wnut17/ {"words",
"tags"}; newwiki/ and xquad_{en,zh}/ {"id", "title", "context", "question",
"answers": {"text", "answer_start"}}; multi30k/ {"de", "en", "fr"}; tang/
{"text", "title", "author"}. Splits are the official ones where there are any;
of newwiki, paragraphs whose SHA-1 ends in a multiple of ten validate; of hotel,
review i is of fold i mod 5; of tang, the last file validates.
"""

import argparse
import csv
import gzip
import hashlib
import json
import pathlib


def main() -> None:
  """Writes every data set whose folder exists."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--shared", type=pathlib.Path, required=True)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  given = parser.parse_args()
  for name, records in {
    "cls_sst2_trec": sentences,
    "cls_zh_hotel_reviews": hotel,
    "ner_wnut17": entities,
    "qa_squadshifts_newwiki": newwiki,
    "qa_xquad": xquad,
    "mt_multi30k": translations,
    "lm_zh_tang_poems": poems,
  }.items():
    folder = given.shared / name
    if not folder.is_dir():
      print(f"{folder}: not there")
      continue
    for file, rows in records(folder).items():
      path = given.output / f"{file}.jsonl"
      path.parent.mkdir(parents=True, exist_ok=True)
      lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
      path.write_text("".join(lines), encoding="utf-8")
      print(f"{path}: {len(lines)} records")


def sentences(folder: pathlib.Path) -> dict[str, list[dict]]:
  """Writes SST-2 and TREC, a label and a sentence per line."""
  found = {}
  for split, file in (
    ("sst2/train", "stsa.binary.train"),
    ("sst2/validation", "stsa.binary.dev"),
    ("sst2/test", "stsa.binary.test"),
    ("trec/train", "TREC.train.all"),
    ("trec/test", "TREC.test.all"),
  ):
    # TREC is in Latin-1, SST-2 in UTF-8.
    encoding = "latin-1" if split.startswith("trec") else "utf-8"
    lines = (folder / file).read_text(encoding=encoding).split("\n")
    pairs = [line.split(" ", 1) for line in lines if line.strip()]
    found[split] = [{"text": t.strip(), "label": int(n)} for n, t in pairs]
  return found


def hotel(folder: pathlib.Path) -> dict[str, list[dict]]:
  """Writes ChnSentiCorp's hotel reviews in five folds; omits the empty one."""
  path = folder / "ChnSentiCorp_htl_all.csv"
  with path.open(encoding="utf-8-sig", newline="") as file:
    rows = [
      {"text": row["review"].strip(), "label": int(row["label"])}
      for row in csv.DictReader(file)
    ]
  rows = [row for row in rows if row["text"]]
  found = {}
  for fold in range(5):
    found[f"hotel/fold{fold}_train"] = [
      row for i, row in enumerate(rows) if i % 5 != fold
    ]
    found[f"hotel/fold{fold}_test"] = rows[fold::5]
  return found


def entities(folder: pathlib.Path) -> dict[str, list[dict]]:
  """Writes WNUT-17; its files have a word and its tag per line."""
  found = {}
  for split, file in (
    ("train", "wnut17train.conll"),
    ("validation", "emerging.dev.conll"),
    ("test", "emerging.test.annotated"),
  ):
    rows, words, tags = [], [], []
    text = (folder / file).read_text(encoding="utf-8")
    for line in [*text.split("\n"), ""]:
      fields = line.strip().split("\t")
      if len(fields) >= 2:
        words.append(fields[0])
        tags.append(fields[-1])
      elif words:
        rows.append({"words": words, "tags": tags})
        words, tags = [], []
    found[f"wnut17/{split}"] = rows
  return found


def _questions(path: pathlib.Path) -> list[dict]:
  """Returns the records of a file in SQuAD's format."""
  articles = json.loads(path.read_text(encoding="utf-8"))["data"]
  return [
    {
      "id": str(each["id"]),
      "title": article.get("title", ""),
      "context": paragraph["context"],
      "question": each["question"],
      "answers": {
        "text": [a["text"] for a in each["answers"]],
        "answer_start": [a["answer_start"] for a in each["answers"]],
      },
    }
    for article in articles
    for paragraph in article["paragraphs"]
    for each in paragraph["qas"]
  ]


def newwiki(folder: pathlib.Path) -> dict[str, list[dict]]:
  """Writes SquadShifts' new Wikipedia set, split by paragraphs."""
  parts = {"newwiki/train": [], "newwiki/validation": []}
  for row in _questions(folder / "new_wiki_v1.0.json"):
    digest = hashlib.sha1(row["context"].encode()).hexdigest()
    held_out = int(digest, 16) % 10 == 0
    parts["newwiki/validation" if held_out else "newwiki/train"].append(row)
  return parts


def xquad(folder: pathlib.Path) -> dict[str, list[dict]]:
  """Writes XQuAD in English and Chinese; articles 0, 5, 10, … are test."""
  found = {}
  for language in ("en", "zh"):
    rows = _questions(folder / f"xquad.{language}.json")
    titles = list(dict.fromkeys(row["title"] for row in rows))
    test = set(titles[::5])
    for split, wanted in (("train", False), ("test", True)):
      found[f"xquad_{language}/{split}"] = [
        row for row in rows if (row["title"] in test) == wanted
      ]
  return found


def translations(folder: pathlib.Path) -> dict[str, list[dict]]:
  """Writes Multi30k's German, English and French captions."""
  found = {}
  for split, stem in (
    ("train", "train"),
    ("validation", "val"),
    ("test", "test_2016_flickr"),
  ):
    sides = {}
    for language in ("de", "en", "fr"):
      with gzip.open(
        folder / f"{stem}.{language}.gz", "rt", encoding="utf-8"
      ) as file:
        sides[language] = [line.strip() for line in file]
    found[f"multi30k/{split}"] = [
      dict(zip(sides, each, strict=True))
      for each in zip(*sides.values(), strict=True)
    ]
  return found


def poems(folder: pathlib.Path) -> dict[str, list[dict]]:
  """Writes Tang poems, a couplet in each line of the text."""
  found = {"tang/train": [], "tang/validation": []}
  paths = sorted(folder.glob("poet.tang.*.json"))
  for path in paths:
    split = "tang/validation" if path == paths[-1] else "tang/train"
    for poem in json.loads(path.read_text(encoding="utf-8")):
      text = "\n".join(poem["paragraphs"])
      if text:
        row = {"text": text, "title": poem["title"], "author": poem["author"]}
        found[split].append(row)
  return found


if __name__ == "__main__":
  main()
