"""Ops on windows of tokens, against T5's and BERT's published rules."""

import re

import numpy as np
import pytest
from specs import shapes
from tiers import slow_but

tf = pytest.importorskip("tensorflow")
stats = pytest.importorskip("scipy.stats")

from configs.language import lm_stdlib  # noqa: E402
from input_pipeline import ops  # noqa: E402
from input_pipeline.batching import added_tokens, pipeline  # noqa: E402
from input_pipeline.ops.parts import spans  # noqa: E402
from input_pipeline.tokenizers import get_tokenizer  # noqa: E402
from input_pipeline.tokenizers.parts import special_tokens, word_starts  # noqa: E402
from train import build, loop, trained  # noqa: E402

_TEXT = "fake:text?documents=30&length=300"
_ALL = [
  "mask_tokens",
  "mask_tokens(0.3, whole_words=True)",
  "span_corruption",
  "span_corruption(0.5, 1.5)",
  "drop_tokens(0.3)",
  "swap_tokens(0.5)",
  "drop_tokens|swap_tokens|mask_tokens",
  "swap_tokens|drop_tokens(0.2)|span_corruption",
]
_PACKED = [string for string in _ALL if "span" not in string]


def seed(epoch, index):
  return tf.constant([epoch, index], tf.int64)


def byte(string=""):
  """The byte tokenizer with what the ops add."""
  return added_tokens.extended(get_tokenizer("byte", "fake:text"), string)


def window(tokens, last, size=None):
  """A window of tokens, with padding up to `size`."""
  n = len(tokens)
  size = size or n
  inputs = np.zeros(size, np.int32)
  targets = np.zeros(size, np.int32)
  inputs[:n], targets[:n] = tokens, [*tokens[1:], last]
  mask = (np.arange(size) < n).astype(np.float32)
  return {
    "inputs": inputs,
    "targets": targets,
    "mask": mask,
    "bytes": np.float32(mask.sum()),
  }


def packed(pieces, size):
  """A packed row of pieces, each (tokens, its last target)."""
  row = {
    k: np.zeros(size, np.int32)
    for k in ("inputs", "targets", "segments", "positions")
  }
  at = 0
  for number, (tokens, last) in enumerate(pieces, 1):
    part = slice(at, at + len(tokens))
    row["inputs"][part] = tokens
    row["targets"][part] = [*tokens[1:], last]
    row["segments"][part] = number
    row["positions"][part] = np.arange(len(tokens))
    at += len(tokens)
  mask = (row["segments"] > 0).astype(np.float32)
  return {**row, "mask": mask, "bytes": np.float32(mask.sum())}


def run(string, example, index=0, epoch=0, tokenizer=None):
  tokenizer = tokenizer or byte(string)
  function = ops.compile(string, ops.Context(tokenizer=tokenizer))
  example = {name: tf.constant(leaf) for name, leaf in example.items()}
  found = function(example, seed(epoch, index))
  return {name: leaf.numpy() for name, leaf in found.items()}


def take(data, first_step, count):
  batches = data.batches(first_step)
  return [next(batches) for _ in range(count)]


def letters(n, key=0):
  return np.random.default_rng(key).integers(97, 123, n).astype(np.int32)


@pytest.mark.parametrize("string", _ALL)
def test_eager_and_tf_data_agree_to_the_bit(string):
  tokenizer = byte(string)
  function = ops.compile(string, ops.Context(tokenizer=tokenizer))
  rows = [window(letters(n, n), 98, 40) for n in (40, 40, 40, 40, 25, 3, 1)]
  stacked = {k: np.stack([row[k] for row in rows]) for k in rows[0]}
  dataset = tf.data.Dataset.from_tensor_slices(stacked).enumerate()
  dataset = dataset.map(
    lambda i, row: function(row, tf.stack([3, i])), num_parallel_calls=2
  )
  for leaf in dataset.element_spec.values():
    assert None not in leaf.shape.as_list()
  for i, found in enumerate(dataset.as_numpy_iterator()):
    eager = run(string, rows[i], i, 3)
    assert eager.keys() == found.keys()
    for name, leaf in eager.items():
      np.testing.assert_array_equal(leaf, found[name])


@pytest.mark.parametrize(
  ("string", "packing"),
  slow_but(
    [("mask_tokens", True), ("span_corruption", False)],
    [(s, False) for s in _ALL] + [(s, True) for s in _PACKED],
  ),
)
def test_batches_depend_on_the_step_alone(string, packing):
  settings = dict(
    source=_TEXT,
    tokenizer="byte",
    seq_len=32,
    batch_size=8,
    ops=string,
    packing=packing,
  )
  data = pipeline.train(**settings, seed=3)
  whole = take(data, 0, 6)
  for name, (shape, dtype) in shapes(data.spec).items():
    assert whole[0][name].shape == (8, *shape)
    assert whole[0][name].dtype == dtype
  for step, again in enumerate(take(data, 4, 2), 4):
    for name, leaf in again.items():
      np.testing.assert_array_equal(leaf, whole[step][name])
  parts = [
    take(pipeline.train(**settings, seed=3, host_index=h, host_count=2), 2, 1)
    for h in range(2)
  ]
  for name, leaf in whole[2].items():
    found = np.concatenate([part[0][name] for part in parts])
    np.testing.assert_array_equal(found, leaf)


@pytest.mark.parametrize("string", _ALL)
def test_another_index_or_epoch_draws_anew(string):
  text = letters(64)
  text[::4] = 32
  row = window(text, 98)
  first = run(string, row, 1, 0)["inputs"]
  np.testing.assert_array_equal(first, run(string, row, 1, 0)["inputs"])
  assert (first != run(string, row, 2, 0)["inputs"]).any()
  assert (first != run(string, row, 1, 1)["inputs"]).any()


# --- span corruption ---


def test_lengths_are_those_that_t5_publishes():
  # Raffel et al.'s preprocessor with its defaults: 512 inputs are made of 568
  # tokens, and give 114 targets.
  assert spans.longest(512) == 568
  found = spans.spans(568, 0.15, 3.0, True)
  assert (found.inputs, found.targets) == (512, 114)
  assert spans.spans(569, 0.15, 3.0, True).inputs > 512


@pytest.mark.parametrize("length", [2, 3, 10, 63, 64, 200])
@pytest.mark.parametrize(
  ("density", "mean"), [(0.15, 3.0), (0.5, 3.0), (0.3, 1.0), (0.15, 8.0)]
)
def test_spans_put_back_give_the_text(length, density, mean):
  string = f"span_corruption({density}, {mean})"
  text = letters(length, 5)
  found = run(string, window(text, 98), index=length)
  full = spans.spans(length, density, mean, True)
  assert found["inputs"].shape == (full.inputs,)
  assert found["targets"].shape == (full.targets,)
  # A full window leaves no padding.
  np.testing.assert_array_equal(found["inputs_mask"], 1)
  np.testing.assert_array_equal(found["mask"], 1)
  assert found["inputs"][-1] == found["targets"][-1] == 0  # end of document
  # By hand: each sentinel of the inputs is replaced by what follows it in the
  # targets.
  first = 256 + special_tokens.SENTINELS - 1
  spans_of, number = {}, None
  for token in found["targets"][:-1]:
    if token > 255:
      number = token
      spans_of[number] = []
    else:
      spans_of[number].append(token)
  assert list(spans_of) == [first - i for i in range(full.count)]
  assert all(spans_of.values())
  assert sum(map(len, spans_of.values())) == full.noise
  whole = []
  for token in found["inputs"][:-1]:
    whole += spans_of.pop(token) if token > 255 else [token]
  assert not spans_of
  np.testing.assert_array_equal(whole, text)
  # Two spans never touch, and the text begins with what is kept.
  marks = found["inputs"][:-1] > 255
  assert not marks[0] and not (marks[1:] & marks[:-1]).any()


def test_every_way_to_cut_the_spans_is_as_likely():
  # 8 tokens, half noise, in 2 spans: 3 ways to cut 4 into 2, for the noise and
  # for what is kept, drawn apart.
  function = ops.compile(
    "span_corruption(0.5, 2.0)",
    ops.Context(tokenizer=byte("span_corruption")),
  )
  row = {k: tf.constant(v) for k, v in window(letters(8), 98).items()}
  found = tf.data.Dataset.range(1800).map(
    lambda i: function(row, tf.stack([0, i]))["inputs"]
  )
  kinds, counts = np.unique(
    np.stack(list(found.as_numpy_iterator())) > 255, axis=0, return_counts=True
  )
  assert len(kinds) == 3  # the inputs show where the kept tokens are cut
  assert stats.chisquare(counts).pvalue > 1e-4
  both = tf.data.Dataset.range(1800).map(
    lambda i: tf.concat(
      [function(row, tf.stack([0, i]))[k] for k in ("inputs", "targets")], 0
    )
  )
  kinds, counts = np.unique(
    np.stack(list(both.as_numpy_iterator())) > 255, axis=0, return_counts=True
  )
  assert len(kinds) == 9
  assert stats.chisquare(counts).pvalue > 1e-4


def test_a_short_last_window_is_padded():
  text = letters(20)
  found = run("span_corruption", window(text, 98, 64))
  alone = run("span_corruption", window(text, 98))
  short = spans.spans(20, 0.15, 3.0, True)
  assert found["inputs_mask"].sum() == short.inputs
  assert found["mask"].sum() == short.targets
  np.testing.assert_array_equal(found["inputs"][short.inputs :], 0)
  assert alone["inputs"].shape == (short.inputs,)
  # With one token there is nothing to predict.
  assert run("span_corruption", window(text[:1], 98, 64))["mask"].sum() == 0


# --- masked tokens ---


def test_masks_have_berts_rates():
  n = 20_000
  text = letters(n)
  found = run("mask_tokens", window(text, 98))
  chosen = found["mask"] > 0
  np.testing.assert_array_equal(found["targets"], text)
  np.testing.assert_array_equal(found["inputs"][~chosen], text[~chosen])
  assert "bytes" not in found
  mask = 256  # above the bytes
  kept = found["inputs"] == text
  # One of 255 random tokens is the token itself by chance.
  random = chosen & ~kept & (found["inputs"] != mask)
  counts = [
    (chosen.sum(), n, 0.15),
    ((found["inputs"] == mask).sum(), chosen.sum(), 0.8),
    (random.sum(), chosen.sum(), 0.1 * 254 / 255),
    ((chosen & kept).sum(), chosen.sum(), 0.1 + 0.1 / 255),
  ]
  for count, of, share in counts:
    assert stats.binomtest(int(count), int(of), share).pvalue > 1e-4
  # Any byte but the end of a document.
  drawn = found["inputs"][random]
  assert drawn.min() >= 1 and drawn.max() <= 255 and len(np.unique(drawn)) > 150


def test_padding_and_ends_of_documents_are_never_masked():
  text = letters(300)
  text[50:250:2] = 0
  found = run("mask_tokens(1.0)", window(text, 98, 400))
  np.testing.assert_array_equal(
    found["mask"] > 0, np.concatenate([text != 0, np.zeros(100, bool)])
  )
  np.testing.assert_array_equal(found["inputs"][50:250:2], 0)


def test_whole_words_are_masked_together():
  words = b"The cat, it's said, sat 3 times on\nthe mat. " * 40
  text = np.frombuffer(words, np.uint8).astype(np.int32)
  found = run("mask_tokens(0.3, whole_words=True)", window(text, 98))
  chosen = found["mask"] > 0
  # By hand: letters and digits with the space before them; signs alone.
  pieces = list(re.finditer(rb"\s?\w+|\s?[^\w\s]|\s", words))
  assert b"".join(m.group() for m in pieces) == words
  states = [set(chosen[m.start() : m.end()].tolist()) for m in pieces]
  assert all(len(state) == 1 for state in states)
  count = sum(True in state for state in states)
  assert stats.binomtest(count, len(pieces), 0.3).pvalue > 1e-4
  # What becomes of a word's tokens is drawn for each.
  inside = found["inputs"][chosen]
  assert (
    stats.binomtest(int((inside == 256).sum()), len(inside), 0.8).pvalue > 1e-4
  )


def test_words_of_sentencepiece_begin_with_its_mark(tmp_path):
  sentencepiece = pytest.importorskip("sentencepiece")
  path = tmp_path / "corpus.txt"
  sample = "the cat sat on the mat, 我们在北京 and the dog ran 3 times\n"
  path.write_text(sample * 50)
  tokenizer = get_tokenizer(
    "sentencepiece?vocab_size=300&model_type=bpe",
    f"text:{path}",
    cache_dir=str(tmp_path),
  )
  model = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.content)
  found = word_starts.words(tokenizer)
  marked = 0
  for i in range(tokenizer.vocab_size):
    piece = model.id_to_piece(i)
    if model.is_control(i) or model.is_unknown(i) or model.is_byte(i):
      continue
    text = piece.replace("\u2581", " ")
    assert found.opens[i] == text[0].isspace(), piece
    marked += found.opens[i]
    if text.strip().isascii() and text.strip().isalnum():
      assert found.joins[i] != found.opens[i]
      assert found.leaves_open[i]
    if "\u4e00" <= text[-1] <= "\u9fff":
      assert not found.leaves_open[i]
  assert marked > 5


def test_bytes_of_a_chinese_character_stay_together():
  text = "我们 say 北京 é".encode()
  found = word_starts.words(byte())
  ids = np.frombuffer(text, np.uint8)
  begins = [True] + [
    bool(found.opens[b] or not found.joins[b] or not found.leaves_open[a])
    for a, b in zip(ids[:-1], ids[1:], strict=True)
  ]
  starts = [i for i, b in enumerate(begins) if b]
  parts = [
    text[a:b].decode()
    for a, b in zip(starts, [*starts[1:], len(text)], strict=True)
  ]
  assert parts == ["我", "们", " say", " ", "北", "京", " é"]


# --- dropped and swapped tokens ---


@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_dropped_tokens_leave_a_text_of_the_others(p):
  text = letters(4000)
  text[100::100] = 0
  last = 98
  found = run(f"drop_tokens({p})", window(text, last))
  n = int(found["mask"].sum())
  inputs, targets = found["inputs"], found["targets"]
  # A text with its next token, ending where the window ended.
  np.testing.assert_array_equal(inputs[1:n], targets[: n - 1])
  assert targets[n - 1] == last
  np.testing.assert_array_equal(inputs[n:], 0)
  np.testing.assert_array_equal(found["mask"], np.arange(4000) < n)
  assert found["bytes"] == n  # each token is one
  # The first stays, so do all ends of documents; of the others a share.
  assert inputs[0] == text[0]
  assert (inputs[:n] == 0).sum() == (text == 0).sum()
  free = 4000 - 1 - (text == 0).sum()
  assert stats.binomtest(4000 - n, int(free), p).pvalue > 1e-4
  # In order: a greedy match finds all of it in the text.
  rest = iter(text.tolist())
  assert all(token in rest for token in inputs[:n].tolist())


def test_pieces_of_a_packed_row_stay_apart():
  pieces = [(letters(n, n), 0) for n in (30, 1, 45, 12)]
  found = run("drop_tokens(0.5)", packed(pieces, 100), index=4)
  segments = found["segments"]
  assert np.unique(segments[segments > 0]).tolist() == [1, 2, 3, 4]
  for number, (tokens, last) in enumerate(pieces, 1):
    at = np.flatnonzero(segments == number)
    np.testing.assert_array_equal(np.diff(at), 1)
    inputs, targets = found["inputs"][at], found["targets"][at]
    assert inputs[0] == tokens[0]
    np.testing.assert_array_equal(targets, [*inputs[1:], last])
    np.testing.assert_array_equal(found["positions"][at], np.arange(len(at)))
    rest = iter(tokens.tolist())
    assert all(token in rest for token in inputs.tolist())
  np.testing.assert_array_equal(found["mask"], segments > 0)


def test_swapped_tokens_have_moved_by_one():
  n = 6000
  text = np.arange(1, n + 1, dtype=np.int32) % 250 + 1
  found = run("swap_tokens(0.3)", window(text, 98))
  moved = found["inputs"] != text
  # Each has changed places with a neighbour, and none twice.
  at = np.flatnonzero(moved)
  left = at[::2]
  np.testing.assert_array_equal(at[1::2], left + 1)
  np.testing.assert_array_equal(found["inputs"][left], text[left + 1])
  np.testing.assert_array_equal(found["inputs"][left + 1], text[left])
  assert len(set((left % 2).tolist())) == 1  # pairs of one cut
  assert stats.binomtest(len(left), n // 2, 0.3).pvalue > 1e-4
  np.testing.assert_array_equal(found["targets"][:-1], found["inputs"][1:])
  assert found["targets"][-1] == 98
  shifts = set()
  for index in range(10):
    found = run("swap_tokens(1.0)", window(text, 98), index)["inputs"]
    shifts.add(int(found[0] == text[0]))
  assert shifts == {0, 1}


def test_swaps_do_not_reach_across_documents():
  pieces = [(letters(n, n), 0) for n in (7, 1, 4, 5)]
  before = packed(pieces, 20)
  for index in range(6):
    found = run("swap_tokens(1.0)", before, index)
    for number, (tokens, last) in enumerate(pieces, 1):
      at = before["segments"] == number
      inputs = found["inputs"][at]
      np.testing.assert_array_equal(np.sort(inputs), np.sort(tokens))
      np.testing.assert_array_equal(found["targets"][at], [*inputs[1:], last])
    np.testing.assert_array_equal(found["inputs"][17:], 0)
  text = letters(9)
  text[4] = 0
  for index in range(6):
    found = run("swap_tokens(1.0)", window(text, 98), index)
    assert found["inputs"][4] == 0
    np.testing.assert_array_equal(
      np.sort(found["inputs"][:4]), np.sort(text[:4])
    )


# --- the vocabulary ---


def test_added_tokens_stand_above_the_vocabulary():
  both = byte("drop_tokens|mask_tokens|span_corruption")
  assert both.vocab_size == 256 + 1 + special_tokens.SENTINELS
  assert both.decode([97, 256, 98]) == "a<mask>b"
  assert both.decode([356, 97, 355]) == "<extra_id_0>a<extra_id_1>"
  assert special_tokens.mask_id(both) == 256
  assert special_tokens.sentinel_id(both) == 356
  assert len(both.byte_lengths) == both.vocab_size
  plain = byte("drop_tokens(0.1)")
  assert plain.vocab_size == 256
  # Named by the user: nothing is added.
  assert byte("mask_tokens(mask_id=1)").vocab_size == 256


def test_tokens_that_the_tokenizer_has_are_taken(tmp_path):
  sentencepiece = pytest.importorskip("sentencepiece")
  prefix = str(tmp_path / "m")
  symbols = [special_tokens.sentinel(i) for i in reversed(range(10))]
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["the cat sat on the mat"] * 30),
    model_prefix=prefix,
    vocab_size=60,
    user_defined_symbols=["[MASK]", *symbols],
    add_dummy_prefix=False,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  tokenizer = get_tokenizer(f"sentencepiece:{prefix}.model", "fake:text")
  string = "mask_tokens|span_corruption"
  found = added_tokens.extended(tokenizer, string)
  assert found.vocab_size == tokenizer.vocab_size
  mask = special_tokens.mask_id(found)
  assert found.decode([mask]) == "[MASK]"
  first = special_tokens.sentinel_id(found)
  assert found.decode([first]) == "<extra_id_0>"
  assert found.decode([first - 9]) == "<extra_id_9>"


def test_wordpiece_has_its_mask_and_its_words(tmp_path):
  pytest.importorskip("tokenizers")
  vocabulary = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the cat play ##ing ##ed a , 我 们"
  )
  (tmp_path / "vocab.txt").write_text(
    "\n".join(vocabulary.split()), encoding="utf-8"
  )
  tokenizer = get_tokenizer(f"wordpiece:{tmp_path}/vocab.txt", "fake:text")
  found = added_tokens.extended(tokenizer, "mask_tokens")
  assert found.vocab_size == len(vocabulary.split())
  assert special_tokens.mask_id(found) == 4
  words = word_starts.words(found)
  pieces = vocabulary.split()
  for i, piece in enumerate(pieces):
    if piece[0] != "[":
      # A word, a sign or a Chinese character begins anew but for "##".
      after_word = words.opens[i] or not words.joins[i]
      assert after_word == (not piece.startswith("##")), piece
  ids = np.array([5, 7, 8, 6, 7, 9, 12, 13] * 100, np.int32)
  masked = run(
    "mask_tokens(0.5, whole_words=True)", window(ids, 5), tokenizer=found
  )
  chosen = (masked["mask"] > 0).reshape(-1, 8)
  np.testing.assert_array_equal(chosen[:, 1], chosen[:, 2])
  np.testing.assert_array_equal(chosen[:, 4], chosen[:, 5])
  for a, b in ((0, 1), (2, 3), (3, 4), (6, 7)):
    assert (chosen[:, a] != chosen[:, b]).any()
  # No special token is drawn as a random one.
  drawn = masked["inputs"].reshape(-1, 8)[chosen]
  assert set(drawn.tolist()) <= {4, *range(5, 14)}


@pytest.mark.slow
def test_a_run_with_masks_has_a_vocabulary_with_the_mask(tmp_path):
  workdir = str(tmp_path)
  config = lm_stdlib.get_config("smoke")
  config.data.ops = "mask_tokens"
  config.evals = {"val": config.evals.val}
  reports = list(loop.fit(build.run(config, workdir, say=lambda line: None)))
  found = trained.load(workdir)
  assert np.isfinite(reports[-1].scalars["val/loss"])
  assert found.parts.data.tokenizer.vocab_size == 257


@pytest.mark.parametrize(
  ("string", "named", "settings"),
  [
    ("drop_tokens(2)", "'drop_tokens': p=2 is not within 0..1", {}),
    ("mask_tokens(0.1, masked=0.9, random=0.2)", "exceeds 1", {}),
    ("mask_tokens(mask_id=256)", "mask_id=256 is not within 0..255", {}),
    ("span_corruption(0)", "density=0 is not between 0 and 1", {}),
    ("span_corruption(mean_span=0)", "mean_span=0 is less than 1", {}),
    ("span_corruption(0.5, 1)", "only .* sentinels", {}),
    ("span_corruption", "does not support packed rows", {"packing": True}),
    ("mask_tokens|drop_tokens", "'drop_tokens': must come before", {}),
    ("flip", "no field 'image'; valid: inputs", {}),
  ],
)
def test_a_wrong_use_is_named(string, named, settings):
  with pytest.raises(ValueError, match=named) as error:
    pipeline.train(
      source=_TEXT,
      tokenizer="byte",
      seq_len=256,
      batch_size=2,
      ops=string,
      **settings,
    )
  assert "\n" not in str(error.value)


def test_without_a_tokenizer_there_are_no_windows():
  with pytest.raises(ValueError, match="set a tokenizer"):
    pipeline.train(
      source="fake:image?dtype=uint8", ops="mask_tokens", batch_size=2
    )
