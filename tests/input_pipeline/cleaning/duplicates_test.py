"""Exact duplicates of documents and of lines, against dictionaries of texts."""

import random

import pytest
from run_global import cut, run_global

from input_pipeline.cleaning.duplicate_lines import duplicate_lines
from input_pipeline.cleaning.exact_duplicates import exact_duplicates
from input_pipeline.document import Counted, Document, Dropped


def corpus(seed: int, size: int = 200) -> list[Document]:
  """Few different texts and lines, with white space and case that vary."""
  rng = random.Random(seed)
  lines = ["a b", "A  b", "c", "", " c ", "第一行", "the long line", "\ud800"]
  documents = []
  for i in range(size):
    text = "\n".join(rng.choices(lines, k=rng.randint(0, 3)))
    fields = {"score": rng.randint(0, 3)} if rng.random() < 0.8 else {}
    documents.append(Document(f"d{i}", text, fields))
  return documents


FORMS = {
  "none": lambda text: text,
  "whitespace": lambda text: text.split(),
  "case+whitespace": lambda text: text.casefold().split(),
}
KEEPS = {
  "first": lambda d: 0,
  "longest": lambda d: len(d.text),
  "field:score": lambda d: d.fields.get("score", -1),
}


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("normalize", FORMS)
def test_exact_duplicates_are_those_of_a_dictionary(normalize, keep):
  documents = corpus(1)
  groups = {}
  for place, document in enumerate(documents):
    groups.setdefault(str(FORMS[normalize](document.text)), []).append(place)
  kept = {
    max(group, key=lambda i: (KEEPS[keep](documents[i]), -i))
    for group in groups.values()
  }
  stage = exact_duplicates(normalize=normalize, keep=keep, partitions=3)
  results, conclusion = run_global(stage, cut(documents, [50, 0, 70]))
  assert {i for i, r in enumerate(results) if r == documents[i]} == kept
  assert results.count(Dropped("exact_duplicate")) == 200 - len(kept)
  sizes = sorted((len(g) for g in groups.values() if len(g) > 1), reverse=True)
  assert conclusion.summary["largest"] == sizes[:20]
  assert conclusion.summary["dropped"] == 200 - len(kept)


def lines_kept(documents: list[Document], min_length: int) -> list[list[str]]:
  """The lines that stay of each document."""
  first, texts = {}, []
  for place, document in enumerate(documents):
    lines = []
    for line in document.text.split("\n"):
      form = " ".join(line.casefold().split())
      if len(form) < min_length or first.setdefault(form, place) == place:
        lines.append(line)
    texts.append(lines)
  return texts


@pytest.mark.parametrize("min_length", [1, 3, 8])
def test_duplicate_lines_are_those_of_a_dictionary(min_length):
  documents = corpus(2)
  stage = duplicate_lines(min_length=min_length, partitions=4)
  results, conclusion = run_global(stage, cut(documents, [1, 99]))
  removed = changed = 0
  expected = lines_kept(documents, min_length)
  for document, result, lines in zip(documents, results, expected, strict=True):
    count = document.text.count("\n") + 1 - len(lines)
    text = "\n".join(lines)
    if not count:
      assert result == document
    elif text.strip():
      expected_document = document._replace(text=text)
      assert result == Counted(expected_document, {"lines_removed": count})
    else:
      assert result == Dropped("only_duplicate_lines")
    changed += count > 0
    removed += count
  assert changed > 20
  assert conclusion.summary["documents_changed"] == changed
  assert conclusion.summary["lines_removed"] == removed


def test_paragraphs_are_parted_by_blank_lines():
  first = Document("a", "One\ntwo.\n\nThree.")
  second = Document("b", "New.\n \n\nOne\n two.\n\nOne.")
  stage = duplicate_lines(unit="paragraph", min_length=1)
  results, _ = run_global(stage, [[first], [second]])
  assert results[0] == first
  assert results[1].document.text == "New.\n \n\nOne."


@pytest.mark.parametrize("make", [exact_duplicates, duplicate_lines])
def test_no_cut_of_the_corpus_and_no_partition_changes_a_verdict(make):
  documents = corpus(3)
  settings = {} if make is exact_duplicates else {"min_length": 3}
  expected = None
  for sizes, partitions in (([], 1), ([7, 0, 90], 5), ([20] * 9, 64)):
    stage = make(partitions=partitions, **settings)
    results, conclusion = run_global(stage, cut(documents, sizes))
    found = results, conclusion.summary
    expected = expected or found
    assert found == expected


def test_an_empty_corpus():
  for stage in (exact_duplicates(), duplicate_lines()):
    results, conclusion = run_global(stage, [[], []])
    assert results == [] and conclusion.summary["documents"] == 0


@pytest.mark.parametrize(
  ("make", "settings", "named"),
  [
    (exact_duplicates, {"normalize": "lower"}, "'lower'"),
    (exact_duplicates, {"keep": "last"}, "'last'"),
    (exact_duplicates, {"keep": "field:"}, "'field:'"),
    (duplicate_lines, {"unit": "word"}, "'word'"),
    (duplicate_lines, {"normalize": ""}, "''"),
    (duplicate_lines, {"partitions": 0}, "partitions=0"),
    (exact_duplicates, {"partitions": -1}, "partitions=-1"),
  ],
)
def test_a_wrong_setting_is_named(make, settings, named):
  with pytest.raises(ValueError, match=named):
    make(**settings)


def test_a_field_that_is_no_number_is_named():
  stage = exact_duplicates(keep="field:score")
  with pytest.raises(ValueError, match="'d7'.*score='high'"):
    stage.summarize([Document("d7", "x", {"score": "high"})])
