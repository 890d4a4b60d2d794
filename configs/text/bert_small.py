r"""A small BERT, pre-trained on the sentences of SST-2's training set alone.

6,920 sentences, one per row, with a fifth of their words masked as whole words.
configs/text/bert_finetune.py starts from the result. Measured on one CPU core:
val/accuracy 18.7 % of the masked tokens, val/loss 5.368, in 1.8 min.

  python -m input_pipeline.fetch sst2
  python -m train.main --config=configs/text/bert_small.py \
    --workdir=runs/bert_small
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 1200
  config.batch_size = 64
  config.task = dict(name="masked_language_modeling", places=12)
  config.model = dict(
    name="bert",
    head="mlm",
    layers=2,
    dim=64,
    heads=4,
    hidden=128,
    dropout=0.1,
    scan=False,  # unrolled layers run faster on a CPU
  )
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw",
    lr=3e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.01,
    clip_norm=1.0,
  )
  config.data = dict(
    source="jsonl:data/sst2/train.jsonl",
    split="all",
    tokenizer="sentencepiece?vocab_size=4000",
    seq_len=48,
    rows=dict(name="sentence_pairs", next_sentence=False),
    ops="mask_tokens(0.2, whole_words=True)",
  )
  config.evals = dict(
    val=dict(
      name="mean",
      source="jsonl:data/sst2/validation.jsonl",
      split="all",
      every_steps=400,
    )
  )
  config.checkpoint = dict(every_steps=400, keep=1)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(dim=16, heads=2, hidden=32),
      data=dict(source="fake:text", tokenizer="byte", seq_len=16),
    )
    del config.evals.val.source
  return config
