r"""GPT-2 XL, 1.56 billion parameters (Radford et al. 2019), as in nanoGPT.

Batches of 0.5M tokens; the learning rate is that of GPT-3's model of this size
(arXiv:2005.14165, table 2.1). Data: any text, which sentencepiece tokenizes to
50,000 tokens at first use.
Expected: a loss of about 2.54 on OpenWebText, nanoGPT's evaluation of OpenAI's
weights. Not measured here.
Planned by train.plan for v5e:4x4: 13.4 GB per chip, at most 264k tokens/s.

  python -m train.main --config=configs/language/gpt2_1558m.py \
    --config.data.source='jsonl:DIR/*.jsonl.gz'
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 600_000
  config.batch_size = 512
  config.task = dict(name="language_modeling", loss_chunk=512)
  config.model = dict(
    name="decoder",
    vocab_size=50304,
    layers=48,
    dim=1600,
    heads=25,
    bias=False,
    remat="full",
  )
  config.learner = dict(name="supervised", microbatches=1)
  config.optimizer = dict(
    name="adamw",
    lr=2e-4,
    b2=0.95,
    schedule="cosine",
    warmup_steps=2000,
    end_lr=2e-5,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  config.data = dict(
    source="jsonl:data/openwebtext/*.jsonl.gz",
    tokenizer="sentencepiece?vocab_size=50000&model_type=bpe",
    seq_len=1024,
  )
  config.evals = dict(
    val=dict(name="mean", split="validation", every_steps=2000),
  )
  config.checkpoint = dict(every_steps=1000, keep=3)
  config.mesh = dict(fsdp=-1)
  config.sharding = [(".*", "fsdp")]
  if common.is_smoke(arg):
    common.shrink_text(config)
  return config
