r"""Llama 3 8B's architecture and peak rate (arXiv:2407.21783, table 3).

Batches of 2M tokens, 1,000 billion tokens in total, where Meta trained on
15,600 billion. Data: any text, which sentencepiece tokenizes to 128,000 tokens
at first use. Expected: no figure is published for so short a run. Not measured
here.
Planned by train.plan for v5e:16x16: 4.9 GB per chip, at most 786k tokens/s.

  python -m train.main --config=configs/language/llama_8b.py \
    --config.data.source='jsonl:DIR/*.jsonl.gz'
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 480_000
  config.batch_size = 256
  config.task = dict(name="language_modeling", loss_chunk=512)
  config.model = dict(
    name="decoder",
    vocab_size=128256,
    layers=32,
    dim=4096,
    heads=32,
    kv_heads=8,
    hidden=14336,
    positions="rotary",
    rope_theta=500000.0,
    norm="rmsnorm",
    activation="swiglu",
    bias=False,
    tie_embeddings=False,
    max_len=8192,
    remat="full",
  )
  config.learner = dict(name="supervised", microbatches=1)
  config.optimizer = dict(
    name="adamw",
    lr=3e-4,
    b2=0.95,
    schedule="cosine",
    warmup_steps=8000,
    end_lr=3e-6,
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
