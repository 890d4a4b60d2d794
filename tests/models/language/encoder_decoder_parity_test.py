"""The encoder-decoder beside transformers' T5 with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.language.encoder_decoder import encoder_decoder
from models.layers.positions import bucket
from train import types
from train.generation import beam_search

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

V, EOS = 23, 1
SIZES = {"d_model": 16, "d_kv": 6, "d_ff": 20, "num_heads": 3}
T5 = {
  "positions": "relative",
  "farthest": 20,
  "buckets": 8,
  "norm": "rmsnorm",
  "norm_eps": 1e-6,
  "norm_first": True,
  "bias": False,
  "scale_embeddings": False,
  "scale_scores": False,
}
VERSIONS = {
  "1.0": (
    {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    {"activation": "relu", "tie_embeddings": True, "scale_logits": True},
  ),
  "1.1": (
    {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    {"activation": "geglu", "tie_embeddings": False},
  ),
}


def array(tensor):
  return jnp.asarray(tensor.detach().numpy())


def t5(version):
  """(transformers' model, ours, our params of its weights)."""
  theirs, ours = VERSIONS[version]
  config = transformers.T5Config(
    vocab_size=V,
    num_layers=2,
    num_decoder_layers=3,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
    dropout_rate=0.0,
    eos_token_id=EOS,
    pad_token_id=0,
    decoder_start_token_id=0,
    **SIZES,
    **theirs,
  )
  torch.manual_seed(0)
  module = transformers.T5ForConditionalGeneration(config).eval()
  if not theirs["tie_word_embeddings"]:
    # transformers 5 ties what it makes anew; loaded weights it leaves apart.
    module.lm_head.weight = torch.nn.Parameter(torch.randn(V, 16) / 4)
  with torch.no_grad():
    for parameter in module.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  model = encoder_decoder(
    vocab_size=V,
    layers=2,
    decoder_layers=3,
    dim=16,
    heads=3,
    head_dim=6,
    hidden=20,
    dropout=0.0,
    **T5,
    **ours,
  )
  return module, model, params_of(module)


def params_of(module):
  gated = "wi_0" in dir(module.encoder.block[0].layer[-1].DenseReluDense)

  def stacked(blocks, get):
    return jnp.stack([array(get(block.layer)) for block in blocks])

  def side(blocks):
    attentions = {"attention": (0, "SelfAttention")}
    if len(blocks[0].layer) == 3:
      attentions["cross"] = (1, "EncDecAttention")
    found = {}
    for ours, (at, theirs) in attentions.items():
      found[ours] = {
        name: {
          "kernel": stacked(
            blocks,
            lambda x, at=at, theirs=theirs, letter=letter: (
              getattr(getattr(x[at], theirs), letter).weight.T
            ),
          )
        }
        for name, letter in zip(
          ("query", "key", "value", "out"), "qkvo", strict=True
        )
      }
      found[f"{ours}_norm"] = {
        "scale": stacked(blocks, lambda x, at=at: x[at].layer_norm.weight)
      }
    names = {"up": "wi_1" if gated else "wi", "down": "wo"}
    names |= {"gate": "wi_0"} if gated else {}
    found["feed_forward"] = {
      ours: {
        "kernel": stacked(
          blocks,
          lambda x, theirs=theirs: (
            getattr(x[-1].DenseReluDense, theirs).weight.T
          ),
        )
      }
      for ours, theirs in names.items()
    }
    found["feed_forward_norm"] = {
      "scale": stacked(blocks, lambda x: x[-1].layer_norm.weight)
    }
    return found

  params = {"token_embedding": {"embedding": array(module.shared.weight)}}
  for name in ("encoder", "decoder"):
    stack = getattr(module, name)
    first = stack.block[0].layer[0].SelfAttention
    params |= {
      name: side(stack.block),
      f"{name}_norm": {"scale": array(stack.final_layer_norm.weight)},
      f"{name}_bias": {
        "embedding": array(first.relative_attention_bias.weight)
      },
    }
  if module.lm_head.weight is not module.shared.weight:
    params["unembedding"] = {"embedding": array(module.lm_head.weight)}
  return params


def pairs(S=33, T=29):
  """(inputs [3, S], real, tokens [3, T]); longer than the farthest distance."""
  rng = np.random.default_rng(1)
  inputs = rng.integers(2, V, (3, S))
  real = np.arange(S)[None] < np.array([S, 20, 3])[:, None]
  return np.where(real, inputs, 0), real, rng.integers(2, V, (3, T))


@pytest.mark.parametrize("version", VERSIONS)
def test_logits_are_those_of_transformers_t5(version):
  module, model, params = t5(version)
  inputs, real, tokens = pairs()
  with torch.no_grad():
    expected = module(
      input_ids=torch.tensor(inputs),
      attention_mask=torch.tensor(real.astype(int)),
      decoder_input_ids=torch.tensor(tokens),
    ).logits.numpy()
  found, _ = jax.jit(model.apply)(
    params, {}, inputs, tokens, input_segments_BS=real.astype(np.int32)
  )
  np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
  assert expected.std() > 0.1  # there is something to compare


def test_attention_maps_are_those_of_transformers_t5():
  module, model, params = t5("1.0")
  module.set_attn_implementation("eager")  # the others give no weights
  inputs, real, tokens = pairs(S=9, T=5)
  with torch.no_grad():
    expected = module(
      input_ids=torch.tensor(inputs),
      attention_mask=torch.tensor(real.astype(int)),
      decoder_input_ids=torch.tensor(tokens),
      output_attentions=True,
    ).cross_attentions
  found, _ = jax.jit(model.apply, static_argnames="method")(
    params,
    {},
    inputs,
    tokens,
    input_segments_BS=real.astype(np.int32),
    method="attention_maps",
  )
  expected = np.stack([layer.numpy() for layer in expected], axis=1)
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("beams", [1, 4])
def test_beam_search_finds_what_transformers_generate_does(version, beams):
  module, model, params = t5(version)
  inputs, real, _ = pairs(S=9)

  def generate(eos):
    with torch.no_grad():
      return module.generate(
        torch.tensor(inputs),
        attention_mask=torch.tensor(real.astype(int)),
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=0.0,
        max_new_tokens=12,
        do_sample=False,
        early_stopping=False,
        eos_token_id=eos,
        use_cache=False,  # theirs is made for as many layers as the encoder has
        return_dict_in_generate=True,
        output_scores=True,
      )

  # A token that comes in the midst of a text, so that some do end.
  eos = int(generate(EOS).sequences[0, 7])
  theirs = generate(eos)

  @jax.jit
  def write(params):
    return beam_search.write(
      model,
      types.Variables(params, {}),
      jnp.asarray(inputs),
      jnp.asarray(real.astype(np.int32)),
      jax.random.key(0),
      length=12,
      ratio=0.0,
      extra=12,
      eos=eos,
      beams=beams,
      alpha=0.0,
    )

  found = write(params)
  expected = theirs.sequences.numpy()[:, 1:].reshape(3, beams, -1)
  ours = np.asarray(found.tokens_BKL)[..., : expected.shape[-1]]
  # Their beams are filled with the end token, ours with 0.
  ended = np.cumsum(expected == eos, -1) - (expected == eos) > 0
  expected = np.where(ended, 0, expected)
  np.testing.assert_array_equal(ours, expected)
  if beams > 1:  # of one beam they tell no score
    scores = theirs.sequences_scores.numpy().reshape(3, beams)
    np.testing.assert_allclose(found.scores_BK, scores, atol=1e-3)
  assert (expected == eos).any()


@pytest.mark.parametrize("both_ways", [True, False])
def test_buckets_are_those_of_transformers_t5(both_ways):
  attention = transformers.models.t5.modeling_t5.T5Attention
  distance = np.arange(-300, 301)
  expected = attention._relative_position_bucket(
    torch.tensor(distance), both_ways, num_buckets=32, max_distance=128
  )
  found = bucket(jnp.asarray(distance), both_ways, 32, 128)
  np.testing.assert_array_equal(found, expected.numpy())
