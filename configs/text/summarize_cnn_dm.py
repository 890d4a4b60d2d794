r"""Summaries of news by a Transformer from scratch, on CNN/DailyMail.

The task is See et al.'s (arXiv:1704.04368): 287,113 articles with their
highlights, here as JSON lines with the fields "article" and "highlights". The
model is the "TransformerAbs" of Liu and Lapata (arXiv:1908.08345), 6 + 6 layers
of width 768, for which they report ROUGE-1/2/L of 40.21, 17.76 and 37.09.
Intended for an accelerator. Not measured here.

  python -m train.main --config=configs/text/summarize_cnn_dm.py \
    --config.data.source=jsonl:DIR/train.jsonl \
    --config.evals.test.source=jsonl:DIR/test.jsonl
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 200_000
  config.batch_size = 64
  config.task = dict(
    name="sequence_to_sequence",
    label_smoothing=0.1,
    length_ratio=0.0,
    length_extra=150,
  )
  config.model = dict(
    name="encoder_decoder",
    layers=6,
    dim=768,
    heads=8,
    hidden=2048,
    norm_first=True,
    dropout=0.1,
    dtype="bfloat16",
  )
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw", lr=3e-4, b2=0.98, schedule="rsqrt", warmup_steps=8000
  )
  config.data = dict(
    source="jsonl:data/cnn_dm/train.jsonl",
    split="all",
    tokenizer="sentencepiece?vocab_size=32000&model_type=unigram",
    seq_len=512,
    rows=dict(
      name="translation",
      source_key="article",
      target_key="highlights",
      target_len=160,
      packing=False,  # nearly all articles fill a row
    ),
  )
  config.evals = dict(
    test=dict(
      name="text_generation",
      source="jsonl:data/cnn_dm/test.jsonl",
      split="all",
      reference="highlights",
      metrics=("rouge",),
      beams=5,
      alpha=0.9,
      every_steps=20_000,
    ),
  )
  config.checkpoint = dict(every_steps=2000)
  config.mesh = dict(data=-1)
  config.sharding = [(".*", "fsdp")]
  if common.is_smoke(arg):
    common.shrink_pairs(config)
    config.task.length_extra = 8
  return config
