"""Texts as they come: the same as by the plain loop, row by row."""

import contextlib
import types as python

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_but

from common.errors import UserError
from input_pipeline import tokenizers
from models.language.decoder import decoder
from train import types
from train.generation import detokenize, sampling, streaming

BYTES = tokenizers.rebuild("byte", b"")


def found_of(model, tokenizer=BYTES, seed=0, scale=20.0):
  """What trained.load gives, as far as generation reads it.

  The weights are scaled, so that the model is sure of some tokens.
  """
  params, state = jax.jit(model.init)(jax.random.key(seed))
  params = jax.tree.map(lambda leaf: leaf * scale, params)
  return python.SimpleNamespace(
    parts=python.SimpleNamespace(
      model=model,
      data=python.SimpleNamespace(tokenizer=tokenizer),
      task=types.Task(None, {}, {}),
    ),
    variables=types.Variables(params, state),
  )


def tiny(**changes):
  sizes = {"vocab_size": 256, "layers": 2, "dim": 16, "heads": 2, "max_len": 80}
  return decoder(**sizes | changes)


def gathered(pieces, count):
  """(texts, ids, finishes) of the rows."""
  texts, ids = [""] * count, [[] for _ in range(count)]
  finishes = [None] * count
  for piece in pieces:
    assert finishes[piece.row] is None
    texts[piece.row] += piece.text
    ids[piece.row] += piece.tokens
    finishes[piece.row] = piece.finish
  return texts, ids, finishes


def plainly(found, prompt, options, window=None):
  """The ids by reading the whole text anew for every token."""
  model, variables, ids = found.parts.model, found.variables, list(prompt)
  apply = jax.jit(model.apply)
  window = window or model.max_len
  for _ in range(options.max_tokens):
    read = ids[-window:]
    padded = np.zeros((1, window), np.int32)
    padded[0, : len(read)] = read
    logits_1TV = apply(variables.params, variables.model_state, padded)[0]
    logits_1V = logits_1TV[:, len(read) - 1]
    if options.repetition_penalty != 1:
      seen_1V = jnp.zeros((1, 256), bool).at[0, jnp.asarray(ids)].set(True)
      penalty = options.repetition_penalty
      logits_1V = sampling.penalize(logits_1V, seen_1V, penalty)
    key = jax.random.fold_in(jax.random.key(options.seed), len(ids) - 1)
    drawn = sampling.sample_logits(
      logits_1V,
      key[None],
      options.temperature,
      options.top_k,
      options.top_p,
      options.min_p,
    )
    ids.append(int(drawn[0]))
    if ids[-1] == BYTES.eos:
      break
  return ids[len(prompt) :]


PROMPTS = [list(b"To be"), list(b"a"), list(b"or not to be, that is")]
OPTIONS = [
  streaming.Options(max_tokens=20, temperature=0.0),
  streaming.Options(max_tokens=30, temperature=1.0, top_k=9, seed=7),
  streaming.Options(
    max_tokens=11, temperature=0.7, top_p=0.9, repetition_penalty=1.3, seed=8
  ),
]


@pytest.mark.parametrize(
  "changes",
  slow_but([], [{}, {"positions": "rotary", "kv_heads": 1, "window": 5}]),
  ids=["learned", "rotary"],
)
def test_rows_are_written_as_each_alone_by_the_plain_loop(changes):
  found = found_of(tiny(**changes))
  write = streaming.writer(streaming.inference(found), chunk=4)
  _, together, finishes = gathered(write(PROMPTS, OPTIONS), 3)
  for row, (prompt, options) in enumerate(zip(PROMPTS, OPTIONS, strict=True)):
    wanted = plainly(found, prompt, options)
    assert together[row] == wanted
    ended = "stop" if wanted[-1] == BYTES.eos else "length"
    assert finishes[row] == ended
    _, alone, _ = gathered(write([prompt], [options]), 1)
    assert alone[0] == wanted


@pytest.mark.slow
def test_a_text_beyond_max_len_is_written_from_the_window():
  found = found_of(tiny(max_len=24))
  options = [o._replace(max_tokens=40) for o in OPTIONS]
  _, ids, _ = gathered(streaming.stream(found, PROMPTS, options), 3)
  for row, prompt in enumerate(PROMPTS):
    assert ids[row] == plainly(found, prompt, options[row])
  long = list(range(65, 65 + 30))
  _, ids, _ = gathered(streaming.stream(found, [long], options[:1]), 1)
  assert ids[0] == plainly(found, long, options[0])


def test_each_way_of_drawing_was_put_to_the_test():
  """The texts above do not end at once, nor repeat one token."""
  found = found_of(tiny())
  for prompt, options in zip(PROMPTS, OPTIONS, strict=True):
    wanted = plainly(found, prompt, options)
    assert len(wanted) > 5 and len(set(wanted)) > 3


def test_pieces_are_in_order_and_programs_serve_all_calls():
  found = found_of(tiny())
  write = streaming.writer(streaming.inference(found), chunk=4)
  options = [o._replace(max_tokens=9, temperature=0.0) for o in OPTIONS]
  first = list(write(PROMPTS, options))
  with compilations() as seen:
    assert list(write(PROMPTS, options)) == first
    shorter = [o._replace(max_tokens=5) for o in options]
    list(write([p[:18] for p in PROMPTS], shorter))
  assert seen == []


@contextlib.contextmanager
def compilations():
  """The events of what is compiled inside."""
  seen = []

  def hear(name, seconds, **_):
    if name.endswith("backend_compile_duration"):
      seen.append(name)

  jax.monitoring.register_event_duration_secs_listener(hear)
  yield seen
  jax.monitoring.unregister_event_duration_listener(hear)


class Script:
  """A model that writes a given text, whatever it has read.

  Its state is the number of tokens fed, a cache of one axis.
  """

  def __init__(self, script, prompt_len, vocab_size=256):
    self.max_len, self.represents = None, False
    self.plain = self.unstacked = None
    self.init_cache = lambda batch, length: {"fed": jnp.zeros(batch, jnp.int32)}
    table = np.zeros((len(script) + prompt_len, vocab_size), np.float32)
    for i, token in enumerate(script):
      table[prompt_len - 1 + i, token] = 9.0
    self.table = jnp.asarray(table)

  def init(self, rng):
    return {}, {}

  def apply(self, params, state, tokens_BT, cache=None):
    fed = cache["fed"] + tokens_BT.shape[1]
    logits_BV = self.table[fed - 1]
    return (logits_BV[:, None], {"fed": fed}), state


def script_pieces(text, tokenizer=BYTES, chunk=1, **options):
  ids = [int(i) for i in tokenizer.encode(text)]
  found = found_of(Script(ids, 3), tokenizer)
  options = {"max_tokens": len(ids), "temperature": 0.0} | options
  options = streaming.Options(**options)
  return list(streaming.stream(found, [[65, 66, 67]], [options], chunk))


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_no_piece_ends_within_a_character(chunk):
  text = "né 猫 \U0001f408!"
  pieces = script_pieces(text, chunk=chunk)
  assert "".join(piece.text for piece in pieces) == text
  assert all("\ufffd" not in piece.text for piece in pieces)
  if chunk == 1:
    assert [p.text for p in pieces] == list(text)
  assert [len(b) for b in map(bytes, (p.tokens for p in pieces))] == [
    len(p.tokens) for p in pieces
  ]


def test_a_state_that_does_not_grow_is_fed_each_rows_own_prompt():
  found = found_of(Script(list(b"abcdefgh"), 1))
  options = [streaming.Options(max_tokens=3, temperature=0.0)] * 3
  prompts = [[65], [65] * 4, [65] * 2]
  texts, _, _ = gathered(streaming.stream(found, prompts, options), 3)
  assert texts == ["abc", "def", "bcd"]


def test_a_character_that_the_limit_cuts_is_left_out():
  pieces = script_pieces("a猫", max_tokens=3)
  assert "".join(piece.text for piece in pieces) == "a"
  assert sum(len(piece.tokens) for piece in pieces) == 3
  assert pieces[-1].finish == "length"


@pytest.mark.parametrize("chunk", [1, 2, 8])
@pytest.mark.parametrize(
  ("stop", "wanted"),
  [
    (("###",), "one ## two"),
    (("two", "##"), "one "),
    (("two##",), "one ## "),
    (("four", "# #"), "one ## two### three"),
    (("e#",), "one ## two### three"),
  ],
)
def test_nothing_of_a_stop_string_is_handed_out(stop, wanted, chunk):
  pieces = script_pieces("one ## two### three", stop=stop, chunk=chunk)
  assert "".join(piece.text for piece in pieces) == wanted
  stopped = wanted != "one ## two### three"
  assert pieces[-1].finish == ("stop" if stopped else "length")
  if chunk == 1 and stopped:
    written = bytes(t for p in pieces for t in p.tokens).decode()
    assert written.endswith(stop) and written.count(stop[0]) <= 1


def test_the_end_of_a_text_ends_its_row_and_is_not_text():
  pieces = script_pieces("ab\0cd", chunk=8)
  assert pieces == [streaming.Piece(0, "ab", (97, 98, 0), "stop")]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"max_tokens": 0}, "max_tokens = 0 is not at least 1"),
    ({"temperature": -1.0}, "temperature = -1.0"),
    ({"top_k": 0}, "top_k = 0"),
    ({"top_p": 0.0}, "top_p = 0.0"),
    ({"min_p": 1.5}, "min_p = 1.5"),
    ({"repetition_penalty": 0.0}, "repetition_penalty = 0.0"),
    ({"stop": ("",)}, "stop = "),
  ],
)
def test_options_without_a_meaning_are_named(options, message):
  found = found_of(Script([65], 1))
  with pytest.raises(ValueError, match=message):
    streaming.stream(found, [[65]], [streaming.Options(**options)])


def test_prompts_that_cannot_be_read_are_named():
  write = streaming.writer(streaming.inference(found_of(Script([65], 1))))
  with pytest.raises(ValueError, match="prompt 1 is empty"):
    write([[65], []], [streaming.Options()] * 2)
  with pytest.raises(ValueError, match="prompt 0 has an id outside 0 … 255"):
    write([[256]], [streaming.Options()])
  with pytest.raises(ValueError, match="1 prompts, but 2 options"):
    write([[65]], [streaming.Options()] * 2)
  assert list(write([], [])) == []
  with pytest.raises(UserError, match="cannot generate text"):
    streaming.inference(found_of(Script([65], 1), tokenizer=None))


@pytest.mark.parametrize("max_tokens", [12, 40])
def test_ids_that_fill_up_the_table_are_never_drawn(max_tokens):
  found = found_of(tiny(vocab_size=320, max_len=24), scale=1.0)
  prompts = [list(b"ab"), list(b"xyz")]
  options = [streaming.Options(max_tokens=max_tokens, seed=s) for s in (1, 2)]
  _, ids, _ = gathered(streaming.stream(found, prompts, options), 2)
  assert all(len(each) == max_tokens for each in ids)
  assert max(map(max, ids)) < 256
  # A draw is even: about a fifth would be above otherwise.
  assert len({i for each in ids for i in each}) > max_tokens // 2


@pytest.mark.parametrize("size", [3, 16, 90])
def test_tokens_that_are_read_together_give_the_same_text(size):
  def decode(ids):
    return bytes(ids).decode(errors="replace")

  rng = np.random.default_rng(size)
  valid = "né 你好 😀".encode() * 9
  for tokens in (list(valid), rng.integers(1, 256, 180).tolist()):
    one = several = detokenize.begin(decode, b"\xe4\xbd")
    expected = found = ""
    for token in tokens:
      one, text, _ = detokenize.read(decode, (), one, token)
      expected += text
    for first in range(0, len(tokens), size):
      part = tokens[first : first + size]
      several, *_, text, finish = detokenize.read_part(
        decode, (), (), 999, several, part
      )
      found += text
      assert finish is None
    assert found == expected
