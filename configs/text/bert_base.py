r"""BERT base, pre-trained on the English Wikipedia (arXiv:1810.04805).

The objectives are masked language modelling with whole words, and next-sentence
prediction; batches of 256 rows of 512 tokens. The paper trains for a million
steps, nine tenths of them on rows of 128 tokens, and also on books. The source
is TFDS's, prepared with file_format="array_record"; any file of records with a
field "text" can take its place. Expected: an average of 79.6 on GLUE's test
sets after fine-tuning, as the paper's base model. Not trained here.

  python -m train.main --config=configs/text/bert_base.py \
    --workdir=runs/bert_base
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 1_000_000
  config.batch_size = 256
  # 15 % of 512 tokens are 77; whole words sometimes make it more.
  config.task = dict(
    name="masked_language_modeling", next_sentence=True, places=112
  )
  config.model = dict(
    name="bert",
    head="mlm",
    next_sentence=True,
    layers=12,
    dim=768,
    heads=12,
    dropout=0.1,
    dtype="bfloat16",
  )
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw",
    lr=1e-4,
    schedule="linear",
    warmup_steps=10_000,
    weight_decay=0.01,
    eps=1e-6,
    clip_norm=1.0,
  )
  config.data = dict(
    source="tfds:wikipedia/20230601.en",
    split="train[:99%]",
    tokenizer="sentencepiece?vocab_size=30000",
    seq_len=512,
    rows=dict(name="sentence_pairs"),
    ops="mask_tokens(0.15, whole_words=True)",
  )
  config.evals = dict(
    val=dict(name="mean", split="train[99%:]", every_steps=10_000)
  )
  config.checkpoint = dict(every_steps=5000, keep=3)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(layers=2, dim=16, heads=2),
      data=dict(source="fake:text", split="all", tokenizer="byte", seq_len=32),
    )
    config.evals.val.split = "all"
  return config
