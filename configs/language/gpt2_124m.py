r"""GPT-2 small, 124M parameters, at nanoGPT's setting (Radford et al. 2019).

Batches of 0.5M tokens, a cosine schedule down to a tenth of the peak rate, and
computation in bfloat16. Intended for eight accelerators, with 12 rows of 1,024
tokens per device and microbatch. Data: any text, which sentencepiece tokenizes
to 32,000 tokens at first use.
Expected: a loss of about 2.85 on OpenWebText, as nanoGPT reports. Not measured
here.
Planned by train.plan for v5e:4x4: 9.1 GB per chip, at most 2.28M tokens/s.

  python -m train.main --config=configs/language/gpt2_124m.py \
    --config.data.source='jsonl:DIR/*.jsonl.gz'
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 600_000
  config.batch_size = 480
  config.task = dict(name="language_modeling")
  config.model = dict(
    name="decoder",
    vocab_size=50304,
    layers=12,
    dim=768,
    heads=12,
    bias=False,
    dtype="bfloat16",
    remat="none",
  )
  config.learner = dict(name="supervised", microbatches=5)
  config.optimizer = dict(
    name="adamw",
    lr=6e-4,
    b2=0.95,
    schedule="cosine",
    warmup_steps=2000,
    end_lr=6e-5,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  config.data = dict(
    source="jsonl:data/openwebtext/*.jsonl.gz",
    tokenizer="sentencepiece?vocab_size=32000&model_type=bpe",
    seq_len=1024,
  )
  config.evals = dict(
    val=dict(name="mean", split="validation", every_steps=2000),
    text=dict(
      name="samples", count=2, prompt="The", length=200, every_steps=10_000
    ),
  )
  config.checkpoint = dict(every_steps=1000, keep=3)
  config.mesh = dict(data=-1)
  config.sharding = [(".*", "fsdp")]
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(vocab_size=256, layers=2, dim=16, heads=2),
      learner=dict(microbatches=1),
      data=dict(source="fake:text", tokenizer="byte", seq_len=16),
    )
    config.evals.text.update(length=8)
  return config
