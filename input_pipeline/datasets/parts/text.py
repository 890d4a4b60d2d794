"""Texts as JSON lines, and the formats that they are published in."""

import gzip
import io
import json
import pathlib
from collections.abc import Iterable

# No file of text here comes near this size, in bytes.
_MOST = 2**28


def jsonl(rows: Iterable[dict]) -> bytes:
  """One JSON object a line, in UTF-8."""
  lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
  return "".join(lines).encode()


def labeled(path: pathlib.Path, encoding: str = "utf-8") -> bytes:
  """JSON lines {"text", "label"} of lines of a number, a space and a text."""
  lines = path.read_text(encoding=encoding).split("\n")
  pairs = [line.split(" ", 1) for line in lines if line.strip()]
  return jsonl({"text": t.strip(), "label": int(n)} for n, t in pairs)


def inflated_lines(path: pathlib.Path) -> list[str]:
  """The lines of a gzip file in UTF-8, without the space around them.

  Raises:
    ValueError: it inflates to more than 2**28 bytes.
  """
  with gzip.open(path) as file:
    content = file.read(_MOST + 1)
  if len(content) > _MOST:
    raise ValueError(f"{path}: inflates to more than {_MOST:,} bytes")
  lines = io.StringIO(content.decode(), newline=None)
  return [line.strip() for line in lines]


def questions(path: pathlib.Path) -> list[dict]:
  """The records of a file in the format of SQuAD 1.1, one a question."""
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
