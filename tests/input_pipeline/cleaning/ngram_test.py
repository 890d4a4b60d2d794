import collections
import io
import math
import zipfile

import numpy as np
import pytest

from input_pipeline.cleaning.parts import ngram, ngram_file
from input_pipeline.tokenizers import get_tokenizer

_ENDLESS = 10**9


def test_a_model_worked_out_by_hand():
  # a b a b c, D = 1/2. Pairs: ^a 1, ab 2, ba 1, bc 1. Preceded by: a two, b and
  # c one each, of four.
  model = ngram.fit([np.array([0, 1, 0, 1, 2])], 2, 3, discount=0.5)
  alone = [0.5, 0.25, 0.25]  # (2 - .5) / 4 + .5 * 3 / 4 / 3, ...
  expected = {
    (): [0.75, 0.125, 0.125],  # after ^: (1 - .5) / 1 + .5 * 1 / 1 * .5, ...
    (0,): [0.125, 0.8125, 0.0625],
    (1,): [0.5, 0.125, 0.375],
    (2,): alone,  # nothing was seen after c
  }
  for context, p in expected.items():
    np.testing.assert_allclose(ngram.distribution(model, context), p, 1e-14)
  np.testing.assert_allclose(
    np.exp(ngram.log_prob(model, np.array([0, 1, 1]))), [0.75, 0.8125, 0.125]
  )


def brute(documents, order, size, fixed=None):
  """(w, h) -> p(w | h), from the formula and from lists of n-grams alone."""
  grams = collections.defaultdict(list)  # order -> every occurrence
  for document in documents:
    padded = [size] * (order - 1) + list(document)
    for end in range(order, len(padded) + 1):
      grams[order].append(tuple(padded[end - order : end]))
  counts = {order: collections.Counter(grams[order])}
  for n in range(order - 1, 0, -1):
    counts[n] = collections.Counter(gram[1:] for gram in counts[n + 1])
  discounts = {}
  for n, of_order in counts.items():
    once = sum(c == 1 for c in of_order.values())
    twice = sum(c == 2 for c in of_order.values())
    estimate = once / (once + 2 * twice) if once else 0.5
    discounts[n] = fixed or estimate

  def p(w, h):
    if len(h) == order:
      raise AssertionError("too long a context")
    after = {g[-1]: c for g, c in counts[len(h) + 1].items() if g[:-1] == h}
    below = p(w, h[1:]) if h else 1 / size
    if not after:
      return below
    total, d = sum(after.values()), discounts[len(h) + 1]
    direct = max(after.get(w, 0) - d, 0) / total
    return direct + d * len(after) / total * below

  return p


def corpus(seed, size, lengths):
  rng = np.random.default_rng(seed)
  weights = 1 / np.arange(1, size + 1)
  return [rng.choice(size, n, p=weights / weights.sum()) for n in lengths]


@pytest.mark.parametrize(
  ("order", "size", "fixed"),
  [(1, 5, None), (2, 4, None), (3, 6, None), (3, 6, 0.1), (5, 3, None)],
)
def test_the_formula_by_brute_force(order, size, fixed):
  documents = corpus(order, size, [40, 0, 1, 2, 17])
  model = ngram.fit(documents, order, size, fixed)
  p = brute(documents, order, size, fixed)
  for document in corpus(99, size, [30, 1]):
    padded = (size,) * (order - 1) + tuple(document.tolist())
    expected = [
      math.log(p(padded[i + order - 1], padded[i : i + order - 1]))
      for i in range(len(document))
    ]
    found = ngram.log_prob(model, document)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    for i in range(len(document)):
      np.testing.assert_allclose(
        ngram.distribution(model, document[:i])[document[i]],
        math.exp(expected[i]),
        rtol=1e-9,
      )


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_sum_to_one(order):
  model = ngram.fit(corpus(0, 7, [60, 3]), order, 9)  # 7 and 8 are never seen
  for context in ([], [0], [8], [0, 8, 0], [1, 0, 2], [6, 5, 4, 3, 2, 1, 0]):
    p = ngram.distribution(model, context)
    assert p.min() > 0
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)


def test_where_nothing_was_seen_once_what_is_new_stays_possible():
  model = ngram.fit([np.array([0, 0, 1, 1] * 5)], 1, 3)
  assert model.discounts == (0.5,)
  assert ngram.distribution(model, [])[2] == pytest.approx(0.5 * 2 / 20 / 3)


def test_a_long_document_is_scored_in_pieces(monkeypatch):
  model = ngram.fit(corpus(0, 5, [300]), 3, 5)
  (ids,) = corpus(1, 5, [100])
  whole = ngram.log_prob(model, ids)
  monkeypatch.setattr(ngram, "_CHUNK", 7)
  np.testing.assert_array_equal(ngram.log_prob(model, ids), whole)
  monkeypatch.setattr(ngram, "_OUTSIDE_THE_CACHE", 0)
  np.testing.assert_array_equal(ngram.log_prob(model, ids), whole)
  assert ngram.log_prob(model, ids[:0]).shape == (0,)


def test_a_large_vocabulary_of_a_high_order_needs_no_wider_key():
  # 20 ids of 17 bits are 340 bits.
  ids = np.arange(60) * 1000 % 99_991
  model = ngram.fit([ids], 20, 99_991, 0.5)
  seen = np.exp(ngram.log_prob(model, ids))
  swapped = ids.copy()
  swapped[[10, 11]] = swapped[[11, 10]]
  other = np.exp(ngram.log_prob(model, swapped))
  assert seen[11] > 100 * other[11]


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (([[0, 3]], 2, 3), "an id is not within 0..2"),
    (([[-1]], 2, 3), "an id is not within 0..2"),
    (([[]], 2, 3), "no ids"),
    (([[0]], 0, 3), "order=0 is not from"),
    (([[0]], 33, 3), "order=33 is not from"),
    (([[0]], 2, 3, 1.5), "discount=1.5 is not"),
    (([[0]], 2, 3, 0), "discount=0 is not"),
  ],
)
def test_wrong_arguments(arguments, named):
  with pytest.raises(ValueError, match=named):
    ngram.fit(*arguments)
  with pytest.raises(ValueError, match="an id is not within 0..2"):
    ngram.log_prob(ngram.fit([[0]], 2, 3), np.array([3]))


def test_perplexity_is_two_to_the_bits_a_byte():
  tokenizer = get_tokenizer("byte", "unused:")
  ids = tokenizer.encode("abab 猫")
  model = ngram.fit([ids], 2, 256)
  nats = -ngram.log_prob(model, ids).sum()
  bits = nats / math.log(2) / len("abab 猫".encode())
  found = ngram.perplexity(model, tokenizer, "abab 猫")
  assert found == pytest.approx(2**bits)
  assert ngram.perplexity(model, tokenizer, "") is None


@pytest.fixture
def kept(tmp_path):
  tokenizer = get_tokenizer("byte", "unused:")
  model = ngram.fit([tokenizer.encode("to be or not to be")], 3, 256)
  path = str(tmp_path / "deep" / "model.npz")
  ngram_file.save(path, model, tokenizer)
  return path, model


def test_a_file_holds_the_model_and_its_tokenizer(kept, tmp_path):
  path, model = kept
  again, tokenizer = ngram_file.load(path)
  ids = tokenizer.encode("not to be: 猫")
  np.testing.assert_array_equal(
    ngram.log_prob(again, ids), ngram.log_prob(model, ids)
  )
  assert again.discounts == model.discounts
  other = str(tmp_path / "again.npz")
  ngram_file.save(other, again, tokenizer)
  with open(path, "rb") as a, open(other, "rb") as b:
    assert a.read() == b.read()


def test_a_learned_tokenizer_is_in_the_file(tmp_path):
  (tmp_path / "a.txt").write_text("ab ba 猫", encoding="utf-8")
  tokenizer = get_tokenizer("char", f"text:{tmp_path}/a.txt")
  model = ngram.fit([tokenizer.encode("ab 猫")], 2, tokenizer.vocab_size)
  path = str(tmp_path / "model.npz")
  ngram_file.save(path, model, tokenizer)
  (tmp_path / "a.txt").unlink()
  _, again = ngram_file.load(path)
  assert again.encode("b猫").tolist() == tokenizer.encode("b猫").tolist()
  with pytest.raises(ValueError, match="ids in the model, 256 in the tok"):
    ngram_file.save(path, model, get_tokenizer("byte", "unused:"))


def test_every_flipped_byte_is_found_or_changes_nothing(kept):
  path, model = kept
  with open(path, "rb") as file:
    content = file.read()
  ids = np.frombuffer(b"to be or not", np.uint8)
  expected = ngram.log_prob(model, ids)
  refused = 0
  for place in range(0, len(content), 7):
    changed = bytearray(content)
    changed[place] ^= 0x20
    with open(path, "wb") as file:
      file.write(changed)
    try:
      again, _ = ngram_file.load(path)
    except ValueError as error:
      assert path in str(error) and "\n" not in str(error)
      refused += 1
    else:
      np.testing.assert_array_equal(ngram.log_prob(again, ids), expected)
  assert refused > len(content) / 7 / 2


def arrays_of(path):
  with np.load(path) as file:
    return {name: file[name] for name in file.files}


def header(shape):
  file = io.BytesIO()
  described = {"descr": "<i8", "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_1_0(file, described)
  return file.getvalue() + b"\0" * 8


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"format": np.frombuffer(b"other", np.uint8)}, "its format is not"),
    ({"discounts": np.array([0.5, 0.5])}, "not those of a model"),
    ({"discounts": np.array([0.5, 0.5, 0.0])}, "a discount is not"),
    ({"discounts": np.array([0.5, 0.5, np.nan])}, "a discount is not"),
    ({"vocab_size": np.array([255])}, "another vocabulary"),
    ({"vocab_size": np.array([], int)}, "another vocabulary"),
    ({"spec": np.frombuffer(b"sentencepiece", np.uint8)}, "is not a model"),
    ({"keys_1": np.array([3, 2])}, "not in order"),
    ({"keys_1": np.array([], int)}, "not in order"),
    ({"counts_2": np.array([1])}, "not in order"),
    ({"counts_1": np.array([0.5])}, "not an integer"),
    ({"keys_2": np.array([-1])}, "not an integer"),
    ({"keys_2": np.array([_ENDLESS]), "counts_2": np.array([1])}, "beginning"),
    ({"keys_1": np.array([2**63], np.uint64)}, "too large"),
    (
      {"keys_1": np.zeros((2, 2), int)},
      "not a one-dimensional array of numbers",
    ),
    ({"extra": np.array([1])}, "not those of a model"),
  ],
)
def test_a_file_of_something_else_is_one_line(kept, change, named):
  path, _ = kept
  np.savez(path, **{**arrays_of(path), **change})
  with pytest.raises(ValueError, match=named) as error:
    ngram_file.load(path)
  assert path in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
  "content", [b"", b"PK", b"\x93NUMPY", b"x" * 1000, None, "bomb", "claim"]
)
def test_a_file_that_is_no_model(kept, content):
  path, _ = kept
  if content == "bomb":
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
      archive.writestr("format.npy", b"\0" * 2**24)
  elif content == "claim":
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("format.npy", header((2**50,)))
  elif content is None:
    np.savez(path, format=np.array([{"a": 1}], object))  # a pickle
  else:
    with open(path, "wb") as file:
      file.write(content)
  with pytest.raises(ValueError, match="not an n-gram model") as error:
    ngram_file.load(path)
  assert "\n" not in str(error.value)
  with pytest.raises(ValueError, match="No such file"):
    ngram_file.load(path + "x")
