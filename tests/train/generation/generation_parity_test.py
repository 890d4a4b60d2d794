"""Generation with GPT-2's weights, beside transformers' generate."""

from types import SimpleNamespace as Named

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_arrays import array, dense, norms, one, randomize

from input_pipeline import tokenizers
from models.language.decoder import decoder
from train import types
from train.generation import sampling, streaming

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

V, MAX_LEN = 256, 64


@pytest.fixture(scope="module")
def theirs():
  config = transformers.GPT2Config(
    vocab_size=V,
    n_positions=MAX_LEN,
    n_embd=32,
    n_layer=3,
    n_head=4,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
  )
  model = randomize(transformers.GPT2LMHeadModel(config))
  with torch.no_grad():  # so that its texts do not repeat one token
    for name, parameter in model.transformer.h.named_parameters():
      if name.endswith("weight") and "ln_" not in name:
        parameter.mul_(4)
  return model


@pytest.fixture(scope="module")
def found(theirs):
  base = theirs.transformer
  h = list(base.h)
  attention = {
    name: dense(h, lambda m: m.attn.c_attn, split, transpose=False)
    for split, name in enumerate(("query", "key", "value"))
  }
  params = {
    "token_embedding": {"embedding": array(base.wte.weight)},
    "position_embedding": {"embedding": array(base.wpe.weight)},
    "final_norm": one(norms([base], lambda m: m.ln_f)),
    "blocks": {
      "attention_norm": norms(h, lambda m: m.ln_1),
      "attention": attention
      | {"out": dense(h, lambda m: m.attn.c_proj, transpose=False)},
      "feed_forward_norm": norms(h, lambda m: m.ln_2),
      "feed_forward": {
        "up": dense(h, lambda m: m.mlp.c_fc, transpose=False),
        "down": dense(h, lambda m: m.mlp.c_proj, transpose=False),
      },
    },
  }
  model = decoder(vocab_size=V, layers=3, dim=32, heads=4, max_len=MAX_LEN)
  tokenizer = tokenizers.rebuild("byte", b"")._replace(eos=None)
  data = Named(tokenizer=tokenizer)
  return Named(
    parts=Named(model=model, network=model, data=data),
    variables=types.Variables(params, {}),
  )


PROMPTS = [list(b"once"), list(b"u"), list(b"a long time ago, before")]


def written(found, options):
  ids = [[] for _ in PROMPTS]
  for piece in streaming.stream(found, PROMPTS, [options] * len(PROMPTS)):
    ids[piece.row] += piece.tokens
  return ids


def test_logits_are_theirs_with_a_cache_and_without(theirs, found):
  tokens = np.random.default_rng(0).integers(0, V, (2, 40))
  wanted = theirs(torch.tensor(tokens)).logits.detach().numpy()
  model, params = found.parts.model, found.variables.params
  whole, _ = model.apply(params, {}, jnp.asarray(tokens))
  np.testing.assert_allclose(whole, wanted, atol=1e-4)
  apart, own = model.unstacked(params)
  for network, weights in ((model, params), (apart, own)):
    cache = network.init_cache(2, 40)
    parts = []
    for begin, end in ((0, 9), (9, 10), (10, 11), (11, 40)):
      piece = jnp.asarray(tokens[:, begin:end])
      (logits, cache), _ = network.apply(weights, {}, piece, cache=cache)
      parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, 1), wanted, atol=1e-4)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_texts_are_theirs_token_for_token(theirs, found, penalty):
  options = streaming.Options(
    max_tokens=32, temperature=0.0, repetition_penalty=penalty
  )
  ours = written(found, options)
  for prompt, ids in zip(PROMPTS, ours, strict=True):
    given = torch.tensor([prompt])
    wanted = theirs.generate(
      given,
      attention_mask=torch.ones_like(given),
      max_new_tokens=32,
      do_sample=False,
      repetition_penalty=penalty,
    )
    assert ids == wanted[0, len(prompt) :].tolist()
    assert len(set(ids)) > 5


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_texts_with_a_cache_are_those_without(found, temperature):
  """Greedy and sampled: the text is read anew for every token."""
  options = streaming.Options(max_tokens=32, temperature=temperature, seed=5)
  apply = jax.jit(found.parts.model.apply)
  for prompt, ids in zip(PROMPTS, written(found, options), strict=True):
    text = list(prompt)
    for _ in range(32):
      padded = np.zeros((1, MAX_LEN), np.int32)
      padded[0, : len(text)] = text
      logits_1TV = apply(found.variables.params, {}, padded)[0]
      key = jax.random.fold_in(jax.random.key(5), len(text) - 1)
      logits_1V = logits_1TV[:, len(text) - 1]
      drawn = sampling.sample_logits(logits_1V, key[None], temperature)
      text.append(int(drawn[0]))
    assert ids == text[len(prompt) :]
