import numpy as np
import pytest

from input_pipeline import rows
from input_pipeline.batching import pipeline
from input_pipeline.rows.labeled import fitted
from input_pipeline.tokenizers.parts import special_tokens

LABELED = dict(
  source="fake:labeled_text",
  tokenizer="byte",
  seq_len=16,
  rows=dict(name="labeled"),
)


def test_a_labeled_row_is_cls_text_sep_and_padding(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text(
    '{"text": "abc", "more": "de", "label": "no"}\n'
    '{"text": "f", "more": "g", "label": "yes"}\n'
  )
  kind = dict(name="labeled", pair_key="more", labels=["yes", "no"])
  data = pipeline.evaluation(
    source=f"jsonl:{path}",
    split="all",
    tokenizer="byte",
    seq_len=12,
    rows=kind,
    batch_size=3,
  )
  batch = next(data.batches(0))
  cls, sep = 256, 257
  assert batch["tokens"][0].tolist() == [
    *(cls, *b"abc", sep, *b"de", sep, 0, 0, 0, 0)
  ]
  assert batch["types"][0].tolist() == [0] * 5 + [1] * 3 + [0] * 4
  assert batch["segments"][0].tolist() == [1] * 8 + [0] * 4
  assert batch["label"].tolist() == [1, 0, 0]
  assert batch["mask"].tolist() == [1, 1, 0]
  assert data.num_classes == 2
  assert data.class_names == ("yes", "no")
  assert data.tokenizer.vocab_size == 259
  assert data.tokenizer.decode([cls, 97, sep]) == "<cls>a<sep>"
  assert data.texts(np.array([0]))["more"][0] == "de"


def test_what_does_not_fit_is_cut_from_the_longer_text():
  ids = [np.arange(7), np.arange(3)]
  assert [len(each) for each in fitted(ids, 8)] == [5, 3]
  assert [len(each) for each in fitted(ids, 4)] == [2, 2]
  assert [len(each) for each in fitted(ids, 20)] == [7, 3]


def test_rows_of_a_mixture_have_the_texts_of_each_part():
  parts = [
    dict(source=f"fake:labeled_text?documents=4&seed={i}") for i in (1, 2)
  ]
  data = pipeline.evaluation(
    **{**LABELED, "source": None}, mixture=parts, split="all", batch_size=8
  )
  alone = [
    pipeline.evaluation(
      **{**LABELED, "source": part["source"]}, split="all", batch_size=4
    ).texts(np.arange(4))["text"]
    for part in parts
  ]
  found = data.texts(np.array([5, 0, 7]))["text"]
  assert list(found) == [alone[1][1], alone[0][0], alone[1][3]]


@pytest.mark.parametrize(
  "kind, told",
  [
    (dict(name="labelled"), 'did you mean "labeled"'),
    (dict(name="labeled", label="y"), "did you mean"),
    (dict(name="labeled", label_key="y"), "no field 'y'; valid: text, label"),
    (dict(label_key="y"), "not a dict with a name"),
  ],
)
def test_a_wrong_kind_is_told_in_one_line(kind, told):
  with pytest.raises(ValueError, match=told) as error:
    pipeline.train(**{**LABELED, "rows": kind}, batch_size=4)
  assert "\n" not in str(error.value)


def test_rows_need_a_tokenizer_and_are_not_packed():
  with pytest.raises(ValueError, match="set a tokenizer"):
    pipeline.train(**{**LABELED, "tokenizer": None}, batch_size=4)
  with pytest.raises(ValueError, match="packing has its own"):
    pipeline.train(**LABELED, packing=True, batch_size=4)


def test_a_plan_knows_the_leaves_of_rows():
  leaves, classes = rows.planned(dict(name="labeled", labels=["a", "b"]), 16)
  data = pipeline.train(**LABELED, batch_size=4)
  told = {k: (tuple(s), np.dtype(d)) for k, (s, d) in leaves.items()}
  assert {k: data.spec[k][:2] for k in told} == told
  assert classes == 2
  assert special_tokens.find(data.tokenizer, special_tokens.SEP) == 257
