"""Questions on texts: the source, the rows, the task and the evaluator."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from specs import shapes

from input_pipeline import rows
from input_pipeline.batching import pipeline
from input_pipeline.rows.parts import match_features
from input_pipeline.sources import open_source
from models import Model
from models.language.qa_reader import qa_reader
from train import build, loop, types
from train.evaluators import question_answering as evaluator
from train.tasks.question_answering import question_answering

TEXTS = [
  ("Who won?", "The Panthers (NFL) won in 2015; Ann's café lost.", "NFL"),
  ("谁赢了？", "黑豹队在联赛中排名第六，同时也以 24 次拦截领先。", "24 次拦截"),
  ("which face?", "so cute 😀😀👩‍👩‍👧 and 🇩🇪! yes", "👩‍👩‍👧 and 🇩🇪"),
  ("quel café?", "Le cafe\u0301 noir, le the\u0301 vert.", "the\u0301 vert"),
]


def record(question, context, *answers, identity="q"):
  return {
    "id": identity,
    "question": question,
    "context": context,
    "answers": {
      "text": list(answers),
      "answer_start": [context.index(a) for a in answers],
    },
  }


def write(path, records):
  path.write_text(
    "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
  )
  return f"jsonl:{path}"


def data(
  uri,
  seq_len=40,
  tokenizer="byte",
  max_question=16,
  make=pipeline.evaluation,
  **kind,
):
  return make(
    source=uri,
    split="all",
    text_key="context",
    tokenizer=tokenizer,
    seq_len=seq_len,
    rows=dict(name="questions", max_question=max_question, **kind),
    batch_size=4,
  )


def all_rows(found):
  batches = list(found.batches(0))
  whole = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
  real = whole["index"] >= 0
  whole = {k: v[real] for k, v in whole.items()}
  return whole, found.texts(whole["index"])


def test_a_row_is_cls_question_sep_text_sep(tmp_path):
  uri = write(tmp_path / "a", [record("ab?", "cd ef", "ef")])
  batch, texts = all_rows(data(uri, seq_len=14, max_question=3))
  cls, sep = 256, 257
  assert batch["tokens"][0].tolist() == [
    *(cls, *b"ab?", sep, *b"cd ef", sep, 0, 0, 0)
  ]
  assert batch["types"][0].tolist() == [0] * 5 + [1] * 6 + [0] * 3
  assert batch["segments"][0].tolist() == [1] * 11 + [0] * 3
  assert (batch["start"][0], batch["end"][0]) == (8, 9)
  assert texts["starts"][0].tolist() == [
    *[-1] * 5, 0, 1, 3, 3, 4, *[-1] * 4
  ]  # fmt: skip
  assert texts["ends"][0].tolist() == [
    *[-1] * 5, 1, 2, 3, 4, 5, *[-1] * 4
  ]  # fmt: skip


@pytest.mark.parametrize("tokenizer", ["byte", "char", "sentencepiece"])
@pytest.mark.parametrize("text", TEXTS, ids=[a for _, _, a in TEXTS])
def test_windows_hold_every_token_and_one_the_answer(tmp_path, text, tokenizer):
  question, context, answer = text
  if tokenizer == "sentencepiece":
    tokenizer = "sentencepiece?vocab_size=300&model_type=bpe"
  if tokenizer == "char":  # which knows the text's own characters alone
    question = "".join(c for c in question if c in context) or context[0]
  # Twice, since a tokenizer learns from the nine tenths that train.
  uri = write(tmp_path / "a", 2 * [record(question, context, answer)])
  found = data(uri, seq_len=64, tokenizer=tokenizer, stride=7, max_question=16)
  batch, texts = all_rows(found)
  seen = np.zeros(len(context), bool)
  answers = set()
  for i in range(len(batch["start"])):
    starts, ends = texts["starts"][i], texts["ends"][i]
    for a, b in zip(starts, ends, strict=True):
      if b >= 0:
        seen[a:b] = True
    start, end = batch["start"][i], batch["end"][i]
    if start:
      answers.add(context[starts[start] : ends[end]])
  assert answers == {answer}
  assert all(c.isspace() for c, s in zip(context, seen, strict=True) if not s)


def test_windows_go_on_by_the_stride_and_none_is_without_text(tmp_path):
  context = "abcdefghijklmnopqrstuvwxyz"
  uri = write(tmp_path / "a", [record("?", context, "ij")])
  batch, texts = all_rows(data(uri, seq_len=14, max_question=1, stride=4))
  begins = [s[s >= 0][0] for s in texts["starts"]]
  assert begins == [0, 4, 8, 12, 16]
  assert batch["start"].tolist() == [11, 7, 3, 0, 0]
  assert batch["end"].tolist() == [12, 8, 4, 0, 0]


def test_what_most_have_answered_counts_and_nothing_at_cls(tmp_path):
  context = "one two three"
  records = [
    record("a", context, "two", "three", "three"),
    record("b", context),
    record("c", context, "two three", "one"),
  ]
  batch, texts = all_rows(data(write(tmp_path / "a", records)))
  spans = [
    context[s[a] : e[b]] if a else None
    for s, e, a, b in zip(
      texts["starts"],
      texts["ends"],
      batch["start"],
      batch["end"],
      strict=True,
    )
  ]
  assert spans == ["three", None, "two three"]
  assert batch["start"][1] == batch["end"][1] == 0


@pytest.mark.parametrize("form", ["jsonl", "squad"])
def test_answers_that_are_not_in_the_text_leave_the_others(tmp_path, form):
  context = "one two three"
  found = {
    "a": ([("two", 4), ("tow", -1), ("one", 1)], "two"),
    "b": ([("three", 0), ("three", 8)], "three"),
    "c": ([("four", 0), ("three", None)], None),
  }
  if form == "jsonl":
    records = [
      {
        **record("q", context, identity=k),
        "answers": {
          "text": [text for text, _ in answers],
          "answer_start": [start for _, start in answers],
        },
      }
      for k, (answers, _) in found.items()
    ]
    uri = write(tmp_path / "a", records)
  else:
    asked = [
      {
        "id": k,
        "question": "q",
        "answers": [{"text": t, "answer_start": s} for t, s in answers],
      }
      for k, (answers, _) in found.items()
    ]
    asked[0]["answers"].append({"answer_start": 3})
    whole = [{"paragraphs": [{"context": context, "qas": asked}]}]
    (tmp_path / "a").write_text(json.dumps({"data": whole}))
    uri = f"squad:{tmp_path}/a"
  tested = data(uri)
  batch, texts = all_rows(tested)
  places = zip(
    texts["starts"], texts["ends"], batch["start"], batch["end"], strict=True
  )
  told = [context[s[a] : e[b]] if a else None for s, e, a, b in places]
  assert told == [span for _, span in found.values()]
  assert batch["mask"].tolist() == [1, 1, 0]  # The last is not in the loss,
  # but it is scored, as all are, by the texts of all of its answers.
  assert [each["text"] for each in texts["answers"]] == [
    [text for text, _ in answers] for answers, _ in found.values()
  ]
  assert "5 answers of 3 questions" in tested.note
  trained = pipeline.train(
    **{
      **dict(source=uri, split="all", text_key="context", tokenizer="byte"),
      **dict(seq_len=40, rows=dict(name="questions", max_question=16)),
      **dict(batch_size=2, shuffle=False, on_bad_record="skip"),
    }
  )
  assert trained.num_examples == 2 and trained.skipped().count == 1


def test_features_tell_what_of_the_question_is_where(tmp_path):
  asked, text = match_features.match(
    ["Who", "won", "the", "Cup", "?"],
    "In 1999 the cups . Ann won the Cup ?".split(),
  )
  names = list(match_features.NAMES)
  exact, stem = text[:, names.index("exact")], text[:, names.index("stem")]
  assert exact.tolist() == [0, 0, 1, 0, 0, 0, 1, 1, 1, 0]
  assert stem.tolist() == exact.tolist()  # "cups" is as long as its stem
  runs = 4 * text[:, names.index("run")]
  assert runs.tolist() == [0, 0, 1, 0, 0, 0, 4, 4, 4, 4]
  # Of who, won, the, cup the first sentence has a "the", which is there twice.
  half = np.log(1.5) / np.log(2)
  sentence = text[:, names.index("sentence")]
  np.testing.assert_allclose(sentence[:5], half / 4, rtol=1e-6)
  np.testing.assert_allclose(sentence[5:], (2 + half) / 4, rtol=1e-6)
  assert text[:, names.index("capital")].tolist() == [
    1, 0, 0, 0, 0, 1, 0, 0, 1, 0
  ]  # fmt: skip
  assert asked[:, names.index("exact")].tolist() == [0, 1, 1, 1, 0]
  uri = write(tmp_path / "a", [record("the a?", "The b", "b")])
  batch, _ = all_rows(data(uri, features=True))
  found = batch["features"][0]
  assert found.shape == (40, match_features.COUNT)
  assert found[1:4, 0].tolist() == [1, 1, 1]  # "the" by its bytes
  assert found[8:11, 0].tolist() == [1, 1, 1] and not found[11:, 0].any()
  assert found[8:12, -1].tolist() == [1, 0, 0, 1]  # a word's first token


def test_a_plan_knows_the_leaves(tmp_path):
  uri = write(tmp_path / "a", [record("a", "one two", "two")])
  for features in (False, True):
    settings = dict(name="questions", features=features)
    leaves, classes = rows.planned(settings, 40)
    spec = shapes(data(uri, features=features).spec)
    assert {k: (tuple(s), np.dtype(d)) for k, (s, d) in leaves.items()} == {
      k: spec[k] for k in leaves
    }
    assert classes is None


GOOD = record("a", "one two", "two")


@pytest.mark.parametrize(
  "bad, kind, told",
  [
    ({"answers": {"text": ["two"], "answer_start": [3]}}, {}, "at character 3"),
    ({"answers": {"text": ["two"], "answer_start": []}}, {}, "equal length"),
    (
      {"answers": {"text": ["two"], "answer_start": ["4"]}},
      {},
      "not an answer",
    ),
    ({"answers": {"text": ["two"], "answer_start": [-3]}}, {}, "not an answer"),
    ({"answers": {"text": [" "], "answer_start": [3]}}, {}, "not an answer"),
    ({"answers": "two"}, {}, "its answers are not"),
    ({"context": 3}, {}, "its text is not a string"),
    ({"context": "x" * 2**21}, {}, "2,097,152 characters, more than 1,048,576"),
    (
      {"context": "", "answers": {"text": [], "answer_start": []}},
      {},
      "no tok",
    ),
    ({}, {"max_question": 37}, "it must be at least 41"),
    ({}, {"stride": 0}, "stride 0 is below 1"),
    ({}, {"id_key": "name"}, "no field 'name'"),
  ],
)
def test_hostile_records_and_settings_are_one_line(tmp_path, bad, kind, told):
  uri = write(tmp_path / "a", [{**GOOD, **bad}])
  with pytest.raises(ValueError, match=told) as error:
    data(uri, make=pipeline.train, **kind)
  assert "\n" not in str(error.value)
  assert not bad or f"{tmp_path}/a:1" in str(error.value)


SQUAD = {
  "data": [
    {
      "title": "T",
      "paragraphs": [
        {
          "context": "one two",
          "qas": [
            {
              "id": "x",
              "question": "a?",
              "answers": [{"text": "two", "answer_start": 4}],
            },
            {
              "id": "y",
              "question": "b?",
              "is_impossible": True,
              "answers": [],
              "plausible_answers": [{"text": "one", "answer_start": 0}],
            },
          ],
        }
      ],
    }
  ]
}


def test_squads_own_files_are_read(tmp_path):
  (tmp_path / "a.json").write_text(json.dumps(SQUAD))
  source = open_source(f"squad:{tmp_path}/*.json", "all")
  found = source.read(np.array([1, 0]))
  assert list(found["id"]) == ["y", "x"] and found["title"][0] == "T"
  assert found["answers"][0] == {"text": [], "answer_start": []}
  assert found["answers"][1] == {"text": ["two"], "answer_start": [4]}
  batch, _ = all_rows(data(f"squad:{tmp_path}/*.json"))
  assert (batch["start"] > 0).tolist() == [True, False]


@pytest.mark.parametrize(
  "change, told",
  [
    (lambda x: x.pop("data"), "no list 'data'"),
    (lambda x: x["data"][0].pop("paragraphs"), r"data\[0\]: no list 'para"),
    (
      lambda x: x["data"][0]["paragraphs"][0]["qas"][1].pop("id"),
      r"data\[0\].paragraphs\[0\].qas\[1\]: no text 'id'",
    ),
    (lambda x: x.update(data=[]), "holds no question"),
  ],
)
def test_hostile_squad_files_are_one_line(tmp_path, change, told):
  broken = json.loads(json.dumps(SQUAD))
  change(broken)
  (tmp_path / "a.json").write_text(json.dumps(broken))
  with pytest.raises(ValueError, match=told) as error:
    open_source(f"squad:{tmp_path}/a.json", "all")
  assert "\n" not in str(error.value)
  (tmp_path / "a.json").write_text("[" * 100_000)
  with pytest.raises(ValueError, match="nested too deeply|not JSON"):
    open_source(f"squad:{tmp_path}/a.json", "all")


def stand_in():
  """Start and end logits that are the tokens' own rows of a table."""

  def apply(params, state, tokens_BT, rng=None, train=False, **where):
    del rng, train, where
    logits = params["table"][tokens_BT]
    return (logits[..., 0], logits[..., 1]), state

  table = jax.random.normal(jax.random.key(0), (9, 2))
  return Model(lambda rng: ({"table": table}, {}), apply)


def test_the_loss_is_of_what_can_be_an_answer():
  task = question_answering(stand_in())
  batch = {
    "tokens": jnp.array([[1, 2, 3, 4, 5, 6, 0], [1, 7, 3, 8, 6, 0, 0]]),
    "types": jnp.array([[0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0, 0]]),
    "segments": jnp.array([[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0]]),
    "start": jnp.array([3, 0]),
    "end": jnp.array([4, 0]),
    "mask": jnp.ones(2),
  }
  variables = task.init(jax.random.key(0), batch)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(jax.random.key(1), 0, True)
  )
  logits = np.asarray(variables.params["table"])[batch["tokens"]]
  total, right = 0.0, 0
  for b, places in enumerate(([0, 3, 4, 5], [0, 3, 4])):
    fits = True
    for side, label in ((0, batch["start"][b]), (1, batch["end"][b])):
      some = logits[b, places, side]
      total += np.logaddexp.reduce(some) - logits[b, label, side]
      fits &= places[int(some.argmax())] == label
    right += fits
  np.testing.assert_allclose(mean.value(), total / 4, rtol=1e-5)
  assert float(aux.metrics["accuracy"].value()) == right / 2


@pytest.mark.parametrize("head", ["tokens", "span"])
def test_bert_fits_both_tasks(tmp_path, head):
  from models.language.bert import bert
  from train.tasks.token_classification import token_classification

  sizes = dict(layers=1, dim=8, heads=2, max_len=40)
  model = bert(vocab_size=258, head=head, num_classes=3, **sizes)
  if head == "span":
    uri = write(tmp_path / "a", [record("ab?", "cd ef", "ef")])
    batch, task = all_rows(data(uri))[0], question_answering(model)
  else:
    found = pipeline.evaluation(
      source="fake:tagged",
      split="all",
      tokenizer="byte",
      seq_len=40,
      rows=dict(name="tagged", labels=["B-person", "I-person", "O"]),
      batch_size=2,
    )
    batch = next(found.batches(0))
    task = token_classification(model, num_classes=3, crf=True)
  variables = jax.eval_shape(task.init, jax.random.key(0), batch)
  mean, _ = jax.eval_shape(
    task.losses["loss"],
    variables,
    batch,
    types.Context(jax.random.key(0), 0, train=True),
  )
  assert mean.total.shape == ()


def test_the_best_span_by_trying_all():
  rng = np.random.default_rng(0)
  context = "abcdefghij"
  texts = {
    "id": "q",
    "context": context,
    "answers": {"text": []},
    "starts": np.array([-1, -1, *range(10), -1]),
    "ends": np.array([-1, -1, *range(1, 11), -1]),
  }
  for _ in range(20):
    start, end = rng.normal(size=(2, 13)).astype(np.float32)
    every = sorted(
      (-(float(start[i]) + float(end[j])), context[i - 2 : j - 1])
      for i in range(2, 12)
      for j in range(i, min(i + 4, 12))
    )
    found = evaluator.of_window(start, end, texts, 4, 5)
    assert [text for _, text in found.best] == [t for _, t in every[:5]]
    assert found.null == pytest.approx(float(start[0]) + float(end[0]))


def test_the_best_threshold_by_trying_all():
  rng = np.random.default_rng(1)
  answered = [
    evaluator.Answered(
      str(i),
      ["cat"] if rng.random() < 0.6 else [],
      [(float(rng.normal()), str(rng.choice(["cat", "dog", "cat dog"])))],
      float(rng.integers(3)),
    )
    for i in range(15)
  ]
  from train.objectives import squad_metrics

  references = [each.references for each in answered]
  found = evaluator.best_threshold(answered, False)

  def f1(threshold):
    told = [
      "" if a.null - a.best[0][0] > threshold else a.best[0][1]
      for a in answered
    ]
    return squad_metrics.score(told, references)["f1"]

  doubts = [a.null - a.best[0][0] for a in answered]
  every = [f1(threshold) for threshold in (*doubts, -99.0)]
  assert found["best_f1"] == pytest.approx(max(every))
  assert f1(found["best_threshold"]) == pytest.approx(max(every))


@pytest.mark.slow
def test_padding_and_what_is_beside_the_question_do_not_matter():
  model = qa_reader(
    vocab_size=9, features=2, dim=8, dropout=0.0, encode=(1, 2), decode=(2,)
  )
  params, state = jax.jit(model.init)(jax.random.key(0))
  tokens = jnp.array([[1, 2, 3, 4, 5, 6]])
  types = jnp.array([[0, 0, 0, 1, 1, 1]])
  told = jax.random.normal(jax.random.key(1), (1, 6, 2))

  def logits(width):
    def pad(x):
      return jnp.pad(x, ((0, 0), (0, width)) + ((0, 0),) * (x.ndim - 2))

    (start, end), _ = jax.jit(model.apply)(
      params,
      state,
      jnp.pad(tokens, ((0, 0), (0, width)), constant_values=7),
      pad(types),
      pad(jnp.ones_like(tokens)),
      pad(told),
    )
    return start[:, :6], end[:, :6]

  for a, b in zip(logits(0), logits(5), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  with pytest.raises(ValueError, match="the rows and the model differ"):
    model.apply(params, state, tokens, types, jnp.ones_like(tokens))


@pytest.mark.slow
def test_a_run_learns_to_answer_and_writes_what(tmp_path):
  from configs.text import qa_newwiki

  config = qa_newwiki.get_config("smoke")
  config.total_steps, config.batch_size = 60, 16
  config.model.update(encode=(1,), decode=(1,))
  config.optimizer.update(lr=0.02, warmup_steps=5)
  config.model.dropout = 0.0
  config.checkpoint.every_steps = 60
  config.data.source = "fake:questions?documents=300&length=24"
  config.evals = {
    "val": dict(
      name="question_answering",
      split="validation",
      null_threshold=0.0,
      n_best=3,
    )
  }
  run = build.run(config, str(tmp_path / "run"), say=lambda line: None)
  last = list(loop.fit(run))[-1].scalars
  assert last["val/best_f1"] >= last["val/f1"] > 50
  told = json.loads((tmp_path / "run" / "val_predictions.json").read_text())
  nbest = json.loads((tmp_path / "run" / "val_nbest.json").read_text())
  assert len(told) == 30 == len(nbest)
  for identity, text in told.items():
    assert text in ("", nbest[identity][0]["text"])
    scores = [each["score"] for each in nbest[identity]]
    assert scores == sorted(scores, reverse=True)
