"""Splits by hash, and the fields of a document that are kept."""

import math
import pickle

import pytest

from input_pipeline.cleaning.keep_fields import keep_fields
from input_pipeline.cleaning.split import split
from input_pipeline.document import Document


def splits(documents, **settings) -> list[str]:
  stage = pickle.loads(pickle.dumps(split(**settings)))
  return [stage(d).fields["split"] for d in documents]


def some(n: int) -> list[Document]:
  return [Document(f"d{i}", f"text {i}", {"lang": "en"}) for i in range(n)]


def test_shares_are_those_asked_for_within_binomial_error():
  n = 20_000
  fractions = dict(validation=0.1, test=0.02, probe=0)
  found = splits(some(n), fractions=fractions)
  for name, p in {**fractions, "train": 0.88}.items():
    assert abs(found.count(name) - n * p) <= 4 * math.sqrt(n * p * (1 - p))
  assert set(splits(some(100), fractions=dict(test=1))) == {"test"}
  assert set(splits(some(100), fractions={}, rest="all")) == {"all"}
  default = splits(some(n))
  assert 100 < default.count("test") < 300


def test_a_text_keeps_its_split_whatever_stands_beside_it():
  documents = some(500)
  fractions = dict(validation=0.3, test=0.3)
  found = splits(documents, fractions=fractions)
  assert splits(documents[::-1], fractions=fractions) == found[::-1]
  renamed = [d._replace(id="x" + d.id, fields={}) for d in documents]
  assert splits(renamed, fractions=fractions) == found
  # Another salt is another draw: 0.3² + 0.3² + 0.4² stay by chance.
  other = splits(documents, fractions=fractions, salt="2")
  same = sum(a == b for a, b in zip(found, other, strict=True))
  assert abs(same - 500 * 0.34) < 4 * math.sqrt(500 * 0.34 * 0.66)
  # The published value of XXH3 of 128 bits decides, on every machine.
  import xxhash

  point = xxhash.xxh3_128_intdigest(b"\0text 0") / 2**128
  expected = ["validation", "test", "train"][(point >= 0.3) + (point >= 0.6)]
  assert found[0] == expected


def test_groups_and_hosts_stay_together():
  urls = [
    f"https://{w}site{i % 40}.org/{i}" for i in range(400) for w in ("", "www.")
  ]
  documents = [
    Document(u, u, {"url": u, "group": i % 7}) for i, u in enumerate(urls)
  ]
  fractions = dict(validation=0.3, test=0.3)
  for by, group in (
    ("host:url", lambda d: d.id.split("/")[2].removeprefix("www.")),
    ("group", lambda d: d.fields["group"]),
  ):
    found = {}
    for d, s in zip(
      documents, splits(documents, fractions=fractions, by=by), strict=True
    ):
      assert d.fields["url"] == d.id
      found.setdefault(group(d), set()).add(s)
    assert all(len(s) == 1 for s in found.values())
    assert len({*map(min, found.values())}) > 1
  assert len(set(splits(documents, fractions=fractions, by="id"))) == 3


@pytest.mark.parametrize(
  ("settings", "named"),
  [
    (dict(fractions=dict(test=1.5)), "test=1.5"),
    (dict(fractions=dict(test=-0.1)), "test=-0.1"),
    (dict(fractions=dict(a=0.6, b=0.5)), "1.1"),
    (dict(fractions=dict(train=0.5)), "'train'"),
  ],
)
def test_a_wrong_setting_is_named(settings, named):
  with pytest.raises(ValueError, match=named):
    split(**settings)


@pytest.mark.parametrize(
  ("by", "fields", "named"),
  [
    ("site", {}, "'d7' has no field 'site'"),
    ("host:url", {}, "'d7' has no field 'url'"),
    ("host:url", {"url": "no url"}, "'d7'.*url='no url'"),
    ("host:url", {"url": "http://[x"}, "'d7'"),
  ],
)
def test_a_document_without_the_field_is_named(by, fields, named):
  with pytest.raises(ValueError, match=named):
    split(by=by)(Document("d7", "x", fields))


def test_fields_that_are_not_kept_go():
  document = Document("a", "x", {"url": "u", "lang": "en", "mail": "m"})
  stage = pickle.loads(pickle.dumps(keep_fields(["lang", "url", "none"])))
  assert stage(document) == document._replace(fields={"url": "u", "lang": "en"})
  with pytest.raises(ValueError, match="'lang'"):
    keep_fields("lang")
