"""XQuAD in one of its languages."""

from input_pipeline.datasets import Dataset, Files, Written
from input_pipeline.datasets.parts import github, text


def xquad(
  language: str, size: int, sha256: str, configs: tuple[str, ...]
) -> Dataset:
  """1,190 questions, published for testing alone, split here by articles.

  Args:
    language: "en" or "zh".
    size: of xquad.LANGUAGE.json, in bytes.
    sha256: of that file.
    configs: that read the folder.
  """
  file = f"xquad.{language}.json"

  def write(files: Files) -> Written:
    """Every fifth article tests."""
    rows = text.questions(files[file])
    titles = list(dict.fromkeys(row["title"] for row in rows))
    test = set(titles[::5])
    for split, wanted in (("train", False), ("test", True)):
      found = [row for row in rows if (row["title"] in test) == wanted]
      yield f"{split}.jsonl", text.jsonl(found)

  name = {"en": "English", "zh": "Chinese"}[language]
  return Dataset(
    what=f"1,190 questions on Wikipedia in {name} (Artetxe et al. 2020)",
    licence="CC BY-SA 4.0",
    origin="https://github.com/google-deepmind/xquad",
    digests=github.DIGESTS,
    files=github.files(
      "google-deepmind/xquad",
      "7d30520c717524000f0d9d2f9c10a069acd9d285",
      "qa_xquad",
      {file: (size, sha256)},
    ),
    holds=("test.jsonl", "train.jsonl"),
    write=write,
    configs=configs,
  )
