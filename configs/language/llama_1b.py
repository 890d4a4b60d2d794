r"""Llama 3.2 1B's architecture (arXiv:2407.21783 and its model card).

1.24 billion parameters; batches of 0.5M tokens, 100 billion tokens in total,
with the model's own recipe scaled down. Meta's weights were distilled from
larger models on up to 9,000 billion tokens. Data: any text, which sentencepiece
tokenizes to 128,000 tokens at first use. Expected: no figure is published for
so short a run. Not measured here.
Planned by train.plan for v5e:4x4: 11.2 GB per chip, at most 286k tokens/s.

  python -m train.main --config=configs/language/llama_1b.py \
    --config.data.source='jsonl:DIR/*.jsonl.gz'
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 200_000
  config.batch_size = 64
  config.task = dict(name="language_modeling", loss_chunk=512)
  config.model = dict(
    name="decoder",
    vocab_size=128256,
    layers=16,
    dim=2048,
    heads=32,
    kv_heads=8,
    hidden=8192,
    positions="rotary",
    rope_theta=500000.0,
    norm="rmsnorm",
    activation="swiglu",
    bias=False,
    tie_embeddings=True,
    max_len=8192,
    remat="full",
  )
  config.learner = dict(name="supervised", microbatches=1)
  config.optimizer = dict(
    name="adamw",
    lr=4e-4,
    b2=0.95,
    schedule="cosine",
    warmup_steps=2000,
    end_lr=4e-6,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  config.data = dict(
    source="jsonl:data/web/*.jsonl.gz",
    tokenizer="sentencepiece?vocab_size=128000&model_type=bpe",
    seq_len=8192,
  )
  config.evals = dict(
    val=dict(name="mean", split="validation", every_steps=1000),
  )
  config.checkpoint = dict(every_steps=1000, keep=3)
  config.mesh = dict(fsdp=-1)
  config.sharding = [(".*", "fsdp")]
  if common.is_smoke(arg):
    common.shrink_text(config, kv_heads=1, hidden=32, max_len=16)
  return config
