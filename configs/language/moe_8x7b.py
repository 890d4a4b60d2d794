r"""Mixtral 8x7B's architecture (arXiv:2401.04088): 46.7 billion parameters.

Each layer has eight experts, two of which are applied to each token, so that
12.9 billion parameters are active. Batches of 2M tokens; the learning rate and
the schedule are those of the Llama of that size, because Mixtral's are not
published. Data: any text, which sentencepiece tokenizes to 32,000 tokens at
first use. Expected: no figure is published. Not measured here.
Planned by train.plan for v5e:16x16: 16.8 GB per chip, at most 511k tokens/s.

  python -m train.main --config=configs/language/moe_8x7b.py \
    --config.data.source='jsonl:DIR/*.jsonl.gz'
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 480_000
  config.batch_size = 512
  config.task = dict(name="language_modeling", loss_chunk=512)
  config.model = dict(
    name="decoder",
    vocab_size=32000,
    layers=32,
    dim=4096,
    heads=32,
    kv_heads=8,
    hidden=14336,
    positions="rotary",
    rope_theta=1000000.0,
    norm="rmsnorm",
    activation="swiglu",
    bias=False,
    tie_embeddings=False,
    experts=8,
    experts_per_token=2,
    max_len=4096,
    remat="full",
  )
  config.learner = dict(name="supervised", microbatches=1)
  config.optimizer = dict(
    name="adamw",
    lr=3e-4,
    b2=0.95,
    schedule="cosine",
    warmup_steps=2000,
    end_lr=3e-5,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  config.data = dict(
    source="jsonl:data/web/*.jsonl.gz",
    tokenizer="sentencepiece?vocab_size=32000&model_type=bpe",
    seq_len=4096,
  )
  config.evals = dict(
    val=dict(name="mean", split="validation", every_steps=1000),
  )
  config.checkpoint = dict(every_steps=1000, keep=3)
  config.mesh = dict(fsdp=-1, expert=8)
  config.sharding = [(".*", "fsdp")]
  if common.is_smoke(arg):
    common.shrink_text(config, kv_heads=1, hidden=32, max_len=16)
  return config
