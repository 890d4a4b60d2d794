import json
import math
from fractions import Fraction

import numpy as np
import pytest

from configs.language import lm_stdlib
from input_pipeline import order
from input_pipeline.batching import components, mixture, pipeline
from input_pipeline.sources import open_source
from train import assembly, build, loop, trained

_WEIGHTS = [
  (1,),
  (3, 1),
  (1, 1),
  (1, 1, 1),
  (5, 3, 2),
  (1, 2, 4, 8, 16, 32, 64),
  (977, 1, 1, 13),
  (2**30, 2**30 - 11, 3, 7),
  tuple(range(1, 41)),
]


def choose(weights, position):
  tree = mixture.tree(np.array(weights, np.int64))
  return mixture.choose(tree, np.asarray(position, np.int64))


@pytest.mark.parametrize("weights", _WEIGHTS, ids=lambda w: f"{w[:4]}")
def test_counts_are_the_weights_over_any_run(weights):
  n = 5000
  component, nth = choose(weights, np.arange(n))
  for i, weight in enumerate(weights):
    counts = np.cumsum(component == i)
    np.testing.assert_array_equal(nth[component == i], np.arange(counts[-1]))
    share = Fraction(weight, sum(weights))
    off = [0.0] + [float(c - share * (p + 1)) for p, c in enumerate(counts)]
    assert max(map(abs, off)) < (2 if len(weights) > 2 else 0.500001)
    # A run from a to b is off by off[b] - off[a].
    assert max(off) - min(off) < (4 if len(weights) > 2 else 1.000001)


def simulated(weights, n):
  """The same tree, walked with a counter in each node."""
  nodes = [(Fraction(w), i) for i, w in enumerate(weights)]
  number = len(nodes)
  children, passed = {}, {}
  while len(nodes) > 1:
    nodes.sort()
    two = sorted(nodes[:2], key=lambda node: (-node[0], node[1]))
    children[number] = two
    nodes = [*nodes[2:], (two[0][0] + two[1][0], number)]
    number += 1
  found = []
  for _ in range(n):
    weight, node = nodes[0]
    while node in children:
      total, left = passed.get(node, (0, 0))
      goes_left = left < math.floor(
        (total + 1) * children[node][0][0] / weight + Fraction(1, 2)
      )
      passed[node] = total + 1, left + goes_left
      weight, node = children[node][0 if goes_left else 1]
    found.append(node)
  return found


@pytest.mark.parametrize("weights", _WEIGHTS[:7], ids=str)
def test_a_closed_form_is_the_walk_it_stands_for(weights):
  component, _ = choose(weights, np.arange(600))
  assert component.tolist() == simulated(weights, 600)


@pytest.mark.parametrize("weights", _WEIGHTS, ids=lambda w: f"{w[:4]}")
def test_seeking_far_is_walking_far(weights):
  total = sum(weights)
  near, nth = choose(weights, np.arange(500))
  rounds = (2**62 - 500) // total
  far, far_nth = choose(weights, rounds * total + np.arange(500))
  np.testing.assert_array_equal(far, near)
  before = rounds * np.array(weights, np.int64)[near]
  np.testing.assert_array_equal(far_nth, before + nth)


def test_weights_are_exact_where_they_can_be():
  def whole(weights, lengths=(), temperature=None):
    return mixture.whole_weights(weights, lengths, temperature).tolist()

  assert whole([3.0, 1.0]) == [3, 1]
  assert whole([0.7, 0.2, 0.1]) == [7, 2, 1]
  assert whole([None, None], [600, 250]) == [12, 5]
  assert whole([None], [600]) == [1]
  odd = [math.pi, math.e, 1e-3]
  rounded = np.array(whole(odd))
  assert rounded.sum() < 2**31
  np.testing.assert_allclose(
    rounded / rounded.sum(), np.array(odd) / sum(odd), rtol=0, atol=2**-30
  )
  lengths = np.array([1_000_000, 10_000, 7])
  for temperature in (1.0, 2.0, 5.0):
    shares = np.array(whole([None] * 3, lengths.tolist(), temperature))
    wanted = lengths ** (1 / temperature)
    np.testing.assert_allclose(
      shares / shares.sum(), wanted / wanted.sum(), rtol=0, atol=2**-29
    )


# Through the pipeline.

_TEXTS = [
  dict(source="fake:text?documents=8&length=200", weight=3.0),
  dict(source="fake:text?documents=30&length=60&seed=1", weight=1.5),
  dict(source="fake:text?documents=5&length=90&seed=2", weight=0.7),
]
_IMAGES = [
  dict(source="fake:image?n=30&size=8&dtype=uint8"),
  dict(source="fake:image?n=11&size=8&dtype=uint8&seed=1", split="all"),
]


def settings(kind):
  if kind == "images":
    pytest.importorskip("tensorflow")
    ops = "random_crop(8, pad=2)|noise(5)|scale(-1, 1)"
    return dict(mixture=_IMAGES, temperature=3.0, ops=ops)
  packing = kind == "packed"
  return dict(mixture=_TEXTS, tokenizer="byte", seq_len=16, packing=packing)


def take(data, first_step, count):
  batches = data.batches(first_step)
  return [next(batches) for _ in range(count)]


def joined(batches):
  return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


def assert_same(first, second):
  assert first.keys() == second.keys()
  for name in first:
    np.testing.assert_array_equal(first[name], second[name])


_KINDS = ["windows", "packed", "images"]


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_from_the_middle_and_on_any_hosts_it_is_the_whole(kind, hosts):
  whole = joined(take(pipeline.train(**settings(kind), batch_size=8), 0, 9))
  assert len(np.unique(whole["index"])) > 20
  parts = [
    take(
      pipeline.train(
        **settings(kind), batch_size=8, host_index=host, host_count=hosts
      ),
      4,
      5,
    )
    for host in range(hosts)
  ]
  middle = joined([joined(step) for step in zip(*parts, strict=True)])
  assert_same(middle, {name: leaf[32:] for name, leaf in whole.items()})


@pytest.mark.parametrize("kind", _KINDS)
def test_each_example_once_in_an_epoch_of_its_component(kind):
  data = pipeline.train(**settings(kind), batch_size=1, seed=5)
  ends = np.cumsum([length_alone(kind, part) for part in data_parts(kind)])
  assert data.num_examples == ends[-1]
  seen = joined(take(data, 0, 5 * int(ends[-1])))["index"]
  first = seen[seen < ends[0]]
  # The first component is ordered as if it were alone.
  np.testing.assert_array_equal(
    first, order.indices(5, int(ends[0]), np.arange(len(first)))
  )
  for start, end in zip([0, *ends[:-1]], ends, strict=True):
    own = seen[(seen >= start) & (seen < end)] - start
    n = end - start
    assert len(own) > n, "the comparison is of whole epochs"
    epochs = [own[i : i + n] for i in range(0, len(own) - n + 1, n)]
    for epoch in epochs:
      np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
    assert len(epochs) < 2 or (epochs[0] != epochs[1]).any()


def data_parts(kind):
  return settings(kind)["mixture"]


def length_alone(kind, part):
  """Examples of a component as a source of its own."""
  rest = {k: v for k, v in settings(kind).items() if k != "temperature"}
  rest |= dict(mixture=None, source=part["source"])
  rest |= dict(split=part.get("split", "train"), batch_size=1)
  return pipeline.train(**rest).num_examples


def test_shares_are_the_weights():
  data = pipeline.train(**settings("windows"), batch_size=104)
  index = take(data, 3, 1)[0]["index"]
  ends = np.cumsum([length_alone("windows", part) for part in _TEXTS])
  counts = np.bincount(np.searchsorted(ends, index, side="right"))
  np.testing.assert_array_equal(counts, [60, 30, 14])


def test_the_key_is_that_of_the_components_own_epoch():
  lengths, weights = [7, 5, 3], np.array([3, 1, 2])
  ordered = mixture.orderer(lengths, weights, seed=9, shuffle=True)
  indices, keys = ordered(np.arange(300))
  component, nth = choose(weights, np.arange(300))
  epoch = nth // np.array(lengths)[component]
  first = component == 0
  np.testing.assert_array_equal(
    keys[first], order.epoch_key(9, nth[first] // 7)
  )
  # One key for each (component, epoch), and no two alike.
  pairs = set(zip(component.tolist(), epoch.tolist(), strict=True))
  with_key = set(
    zip(component.tolist(), epoch.tolist(), keys.tolist(), strict=True)
  )
  assert len(pairs) == len(with_key) == len(set(keys.tolist())) > 40
  # An example comes back with another key in the next epoch.
  assert len(set(zip(indices.tolist(), keys.tolist(), strict=True))) == 300


def test_rows_are_the_components_examples():
  data = pipeline.train(
    mixture=[
      dict(source="fake:linear?n=20&slope=3", split="all"),
      dict(source="fake:linear?n=9&seed=4", split="all"),
    ],
    batch_size=7,
  )
  whole = joined(take(data, 0, 11))
  first = open_source("fake:linear?n=20&slope=3", "all").read(np.arange(20))
  second = open_source("fake:linear?n=9&seed=4", "all").read(np.arange(9))
  for field in ("x", "y"):
    examples = np.concatenate([first[field], second[field]])
    np.testing.assert_array_equal(whole[field], examples[whole["index"]])
  # Proportional: an epoch of all is an epoch of each.
  np.testing.assert_array_equal(np.sort(whole["index"][:29]), np.arange(29))


def test_a_mixture_of_one_is_its_source():
  uri = "fake:text?documents=8&length=200"
  rest = dict(tokenizer="byte", seq_len=16, batch_size=6, seed=3)
  alone = pipeline.train(source=uri, **rest)
  for weight in ({}, {"weight": 0.3}):
    mixed = pipeline.train(mixture=[dict(source=uri, **weight)], **rest)
    assert_same(joined(take(mixed, 2, 30)), joined(take(alone, 2, 30)))


def test_evaluation_is_one_component_after_another():
  data = pipeline.evaluation(
    **{**settings("packed"), "split": "train"}, batch_size=8
  )
  whole = joined(list(data.batches(0)))
  parts = [
    joined(
      list(
        pipeline.evaluation(
          source=part["source"],
          split="train",
          tokenizer="byte",
          seq_len=16,
          packing=True,
          batch_size=1,
        ).batches(0)
      )
    )
    for part in _TEXTS
  ]
  n = data.num_examples
  np.testing.assert_array_equal(whole["index"][:n], np.arange(n))
  for name in ("inputs", "targets", "mask", "segments", "bytes"):
    np.testing.assert_array_equal(
      whole[name][:n], np.concatenate([part[name] for part in parts])
    )


def test_all_is_every_example_once():
  parts = [dict(source="fake:linear?n=20"), dict(source="fake:linear?n=9")]
  data = pipeline.train(mixture=parts, split="all", batch_size="all")
  np.testing.assert_array_equal(take(data, 3, 1)[0]["index"], np.arange(29))
  with pytest.raises(ValueError, match="batch_size 'all' .* weights out"):
    pipeline.train(mixture=[dict(p, weight=1) for p in parts], batch_size="all")


def test_numbers_of_another_width_are_the_first_components(tmp_path):
  """fake: labels are int32, and those of JSON int64."""
  image = np.zeros((2, 2, 1)).tolist()
  lines = [json.dumps({"image": image, "label": i}) for i in range(10)]
  (tmp_path / "a.jsonl").write_text("\n".join(lines))
  jsonl = dict(source=f"jsonl:{tmp_path}/a.jsonl", split="all")
  # The classes of a JSON file are not known, those of fake: are.
  fake = dict(source="fake:image?n=10&size=2", split="all")
  with pytest.raises(ValueError, match="'classes' is 10, but None"):
    pipeline.train(mixture=[jsonl, fake], batch_size=4)
  linear = dict(source="fake:linear?n=10", split="all")
  lines = [json.dumps({"x": [i / 10], "y": [0.5]}) for i in range(10)]
  (tmp_path / "a.jsonl").write_text("\n".join(lines))
  for mixed in ([jsonl, linear], [linear, jsonl]):
    data = pipeline.train(mixture=mixed, batch_size=20)
    (batch,) = take(data, 0, 1)
    assert batch["x"].dtype == np.float32
    assert np.isclose(batch["y"], 0.5).sum() >= 10


# What a tokenizer is learned from.


def test_characters_of_all_components(tmp_path):
  (tmp_path / "a.txt").write_text("abc" * 20)
  lines = [json.dumps({"body": "cdé" * 9}) for _ in range(10)]
  (tmp_path / "b.jsonl").write_text("\n".join(lines))
  data = pipeline.train(
    mixture=[
      dict(source=f"text:{tmp_path}/a.txt"),
      dict(source=f"jsonl:{tmp_path}/b.jsonl", text_key="body", split="all"),
    ],
    tokenizer="char",
    seq_len=4,
    batch_size=8,
  )
  assert data.tokenizer.decode(range(5)) == "abcdé"
  texts = [data.tokenizer.decode(row) for row in take(data, 0, 1)[0]["inputs"]]
  assert {set(t) <= set("abc") for t in texts} == {True, False}


def test_sentencepiece_of_all_components(tmp_path, monkeypatch):
  pytest.importorskip("sentencepiece")
  from input_pipeline import tokenizers

  for name, word in (("a", "kettle"), ("b", "bronze")):
    text = "\n".join(f"{word} {word}s {i % 7}" for i in range(300))
    (tmp_path / f"{name}.txt").write_text(text)
  corpus = [(f"text:{tmp_path}/{name}.txt", "text") for name in "ab"]
  # A first component that is long does not push the second out.
  monkeypatch.setattr(tokenizers, "_MAX_LINES", 200)
  learned = tokenizers.get_tokenizer(
    "sentencepiece?vocab_size=284", corpus, cache_dir=str(tmp_path / "cache")
  )
  for word in ("kettle", "bronze"):
    assert len(learned.encode(f"{word}s")) < 4


# A run of it.


def config_of_run(tmp_path, texts):
  config = lm_stdlib.get_config("smoke")
  del config.data["source"]
  config.data.mixture = [
    dict(source=f"text:{texts}/*.txt", weight=2.0),
    dict(
      source=f"jsonl:{texts}/b.jsonl", text_key="body", split="train", weight=1
    ),
  ]
  config.data.tokenizer = "char"
  config.data.packing = True
  config.evals = dict(
    val=dict(name="mean", every_steps=0),
    windows=dict(name="mean", packing=False, every_steps=0),
    other=dict(
      name="mean", source=f"text:{texts}/*.txt", split="all", every_steps=0
    ),
  )
  return config


@pytest.mark.slow
def test_a_run_and_its_workdir_alone(tmp_path):
  texts = tmp_path / "texts"
  texts.mkdir()
  for i in range(30):
    (texts / f"{i}.txt").write_text("abc " * (i % 9 + 1))
  lines = [json.dumps({"body": "xyz " * (i % 5 + 1)}) for i in range(40)]
  (texts / "b.jsonl").write_text("\n".join(lines))
  config = config_of_run(tmp_path, texts)
  workdir = str(tmp_path / "run")
  reports = list(loop.fit(build.run(config, workdir, say=lambda line: None)))
  scalars = {k: v for r in reports for k, v in r.scalars.items()}
  found = trained.load(workdir)
  assert found.parts.data.tokenizer.decode(range(7)) == " abcxyz"
  assert found.parts.data.spec["segments"][:2] == ((16,), np.int32)
  again = build.evaluators(found, workdir, say=lambda line: None)
  for key, evaluator in again.items():
    loss = evaluator(found.variables, found.step)["loss"]
    assert loss == scalars[f"{key}/loss"]
  # The evaluators' splits are their own, not the training's.
  shared = assembly.complete(config)["data"]
  for kind in (list, tuple):
    taken = components.inherited(
      {**shared, "mixture": kind(shared["mixture"])}, {}
    )
    assert [sorted(part) for part in taken["mixture"]] == [
      ["source", "weight"],
      ["source", "text_key", "weight"],
    ]


_LINEAR = dict(source="fake:linear?n=9")


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (dict(), "exactly one of source and mixture; neither is given"),
    (dict(source="fake:linear", mixture=[_LINEAR]), "both are given"),
    (dict(mixture="fake:linear"), "mixture is not a list"),
    (dict(mixture=[_LINEAR, "fake:linear"]), r"mixture\[1\] is not a dict"),
    (dict(mixture=[dict(weight=1)]), r"mixture\[0\] is not a dict"),
    (
      dict(mixture=[dict(_LINEAR, wieght=1)]),
      r'mixture\[0\]\.wieght: unknown; did you mean "weight"\?',
    ),
    (dict(mixture=[dict(_LINEAR, weight=0)]), r"mixture\[0\]\.weight=0 "),
    (dict(mixture=[dict(_LINEAR, weight="2")]), r"\[0\]\.weight='2' "),
    (dict(mixture=[dict(_LINEAR, weight=math.nan)]), r"weight=nan is not"),
    (
      dict(mixture=[dict(_LINEAR, weight=1), _LINEAR]),
      r"mixture\[1\]\.weight is missing: set all weights",
    ),
    (
      dict(mixture=[dict(_LINEAR, weight=1), dict(_LINEAR, weight=1e-12)]),
      r"mixture\[1\]: its weight is too small",
    ),
    (dict(mixture=[_LINEAR] * 2, temperature=0.0), "temperature=0.0 is not"),
    (dict(source="fake:linear", temperature=2.0), "temperature needs a mix"),
    (
      dict(mixture=[dict(_LINEAR, weight=1)] * 2, temperature=2.0),
      "temperature needs a mixture without weights",
    ),
    (
      dict(mixture=[_LINEAR, dict(source="text:/nowhere/*.txt")]),
      r"text:/nowhere/\*\.txt matches no file",
    ),
    (
      dict(mixture=[_LINEAR, dict(_LINEAR, split="train[:0]")]),
      r"split train\[:0\] holds 0 of ",
    ),
    (
      dict(mixture=[_LINEAR, dict(source="fake:image?n=9")]),
      r"mixture\[1\] fake:image\?n=9 train: 'classes' is 10, but None",
    ),
    (
      dict(mixture=[_LINEAR, dict(source="fake:text")]),
      r"mixture\[1\] fake:text train: 'x' is absent, but float \[1\] in",
    ),
    (
      dict(
        mixture=[dict(source=f"fake:image?n=9&size={n}") for n in (4, 5, 4)]
      ),
      r"mixture\[1\] fake:image\?n=9&size=5 train: 'image' is float \[5, ",
    ),
  ],
)
def test_wrong_mixtures_are_named(arguments, named):
  with pytest.raises(ValueError, match=named) as error:
    pipeline.train(**arguments, batch_size=4)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("read", [pipeline.train, pipeline.evaluation])
@pytest.mark.parametrize(
  "missing",
  [
    dict(source="jsonl:TMP/none/*.jsonl"),
    dict(source="jsonl:TMP/here.jsonl", split="holdout"),
    dict(source="jsonl:TMP/here.jsonl", text_key="body"),
    dict(source="jsonl:TMP/link.jsonl"),
    dict(source="jsonl:TMP/blank.jsonl"),
    dict(source="prepared:TMP"),
    dict(source="tar:TMP/none.tar"),
    dict(source="tfds:no_such_set?data_dir=TMP"),
  ],
  ids=str,
)
def test_a_missing_component_is_never_left_out(missing, read, policy, tmp_path):
  if missing["source"].startswith("tfds"):
    pytest.importorskip("tensorflow_datasets")
  records = [json.dumps({"text": "abc " * 9}) for _ in range(40)]
  (tmp_path / "here.jsonl").write_text("\n".join(records))
  (tmp_path / "blank.jsonl").write_text("\n\n")
  (tmp_path / "link.jsonl").symlink_to(tmp_path / "gone.jsonl")
  here = dict(source=f"jsonl:{tmp_path}/here.jsonl")
  source = missing["source"].replace("TMP", str(tmp_path))
  with pytest.raises(ValueError) as error:
    read(
      mixture=[here, {**missing, "source": source}],
      tokenizer="byte",
      seq_len=8,
      batch_size=4,
      on_bad_record=policy,
    )
  told = str(error.value)
  assert source.partition("?")[0].split(":")[1].split("*")[0] in told
  assert "\n" not in told


def test_more_examples_than_an_index_counts():
  many = pipeline.Examples(2**30, read=None, name=str)
  with pytest.raises(ValueError, match=r"2147483648 .* most 2\*\*31 - 1"):
    components.joined([many, many], ["a", "b"])
