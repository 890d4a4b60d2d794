"""Texts that join, move and leave a batch: each is as it is alone."""

import generation_test as common
import numpy as np
import pytest
from tiers import slow_but

from models.language.rnn import rnn
from train.generation import decoding_programs, slot_programs, slots, streaming

pytestmark = pytest.mark.usefixtures("compiled_soon")

# Of one token, of several pieces, and up to the very end of the cache.
PROMPTS = [[65], list(range(65, 105)), list(range(40, 110)), list(b"abcd")]
OPTIONS = [
  streaming.Options(max_tokens=21, temperature=0.0),
  streaming.Options(max_tokens=30, temperature=1.0, seed=5),
  streaming.Options(max_tokens=10, temperature=0.7, top_k=5, seed=2**40 + 6),
  streaming.Options(
    max_tokens=26, top_p=0.9, min_p=0.01, repetition_penalty=1.3, seed=7
  ),
]


# A cache with a place for each token, and a state of fixed size.
MODELS = {
  "tokens": common.tiny(),
  "state": rnn(vocab_size=256, layers=1, dim=8, hidden=16),
}


@pytest.mark.parametrize("name", slow_but(["tokens"], MODELS))
def test_texts_of_a_batch_are_as_alone(name, monkeypatch):
  # The cache shrinks for the first text, and grows for the next ones.
  monkeypatch.setattr(slot_programs, "_LEAST_ROOM", 16)
  monkeypatch.setattr(slots, "_PATIENCE", 0)
  found = common.found_of(MODELS[name], scale=5.0)
  batch = slots.Slots(
    slot_programs.programs(streaming.inference(found), 4, 80, 4)
  )
  ids = [[] for _ in PROMPTS]
  order: list[int] = []  # the text in each slot

  def advance(calls):
    for _ in range(calls):
      room = max(
        len(PROMPTS[t]) + min(len(ids[t]) + 4, OPTIONS[t].max_tokens)
        for t in order
      )
      drawn = batch.advance(len(order), room)
      for slot, text in enumerate(order):
        ids[text] += drawn.lists()[slot]

  for text in (0, 1, 2, 3):
    assert sum(batch.read(PROMPTS[text])) >= len(PROMPTS[text]) - 1
    batch.join(len(order), PROMPTS[text], OPTIONS[text])
    order.append(text)
    advance(1)
  advance(2)  # text 2 has ended by now; the last one takes its slot
  assert len(ids[2]) == OPTIONS[2].max_tokens
  batch.move(3, 2)
  assert (order.pop(), order.pop()) == (3, 2)
  order.append(3)
  advance(6)
  for text, (prompt, options) in enumerate(zip(PROMPTS, OPTIONS, strict=True)):
    pieces = streaming.stream(found, [prompt], [options])
    assert [ids[text]] == common.gathered(pieces, 1)[1]


@pytest.mark.slow
def test_nothing_is_compiled_in_service(monkeypatch):
  found = common.found_of(common.tiny(layers=1))
  programs = slot_programs.programs(streaming.inference(found), 9, 80, 4)
  assert (programs.slot_counts, programs.rooms) == ([1, 8, 9], [80])
  assert slot_programs.cache_bytes(streaming.inference(found), 9, 80) == (
    2 * 9 * 80 * 16 * 4 + 4  # keys and values of width 16 in float32; a length
  )
  batch = slots.Slots(programs)
  compiled = []
  monkeypatch.setattr(
    "jax._src.compiler.backend_compile_and_load",
    lambda *args, **named: compiled.append(args),
  )
  for slot in range(9):
    list(batch.read(list(range(1, 2 + 7 * slot))))
    batch.join(slot, [1], streaming.Options(max_tokens=4, top_k=slot + 1))
    batch.advance(slot + 1, 5)
  batch.move(3, 2)
  batch.reset()
  assert not compiled


def test_all_bits_of_a_seed_count():
  small = [0, 1, 5, 2**31, 2**32 - 1, -1, -(2**31)]
  large = [2**32, 2**40, 2**40 + 1, 2**63 - 1, 2**63, -(2**40) + 1, -(2**63)]
  how = streaming._how([streaming.Options(seed=s) for s in small + large], 14)
  assert how.seed.dtype == np.uint32
  assert how.seed[: len(small)].tolist() == [s % 2**32 for s in small]
  distinct = [s for s in small if s >= 0] + large
  seeds = {int(decoding_programs.seed_of(s)) for s in distinct}
  assert len(seeds) == len(distinct)
