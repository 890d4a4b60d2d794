"""Named entities of WNUT 2017 (Derczynski et al.) by a small tagger with a CRF.

Six types of new and rare names in tweets and comments: 3,394 sentences train,
1,009 validate, 1,287 test; see benchmarks/prepare_language.py. Measured on 2
busy CPU cores: val/f1 0.255, test/f1 0.168 in 4.3 min, without any pre-trained
vector; CRFsuite on the same features (benchmarks/entities.py), 40 iterations,
one penalty: 0.217 and 0.163.

  python -m train.main --config=configs/ner_wnut17.py --workdir=runs/ner
"""

from ml_collections import ConfigDict

from configs import common

TYPES = (
  "corporation",
  "creative-work",
  "group",
  "location",
  "person",
  "product",
)
LABELS = (
  *(f"{prefix}-{kind}" for prefix in "BI" for kind in TYPES),
  "O",
)


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 1600
  config.batch_size = 32
  config.task = dict(name="token_classification", crf=True)
  config.model = dict(name="tagger", vocab_size=2**15, dim=128)
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw",
    lr=2e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.05,
    clip_norm=1.0,
  )
  config.data = dict(
    source="jsonl:data/wnut17/train.jsonl",
    split="all",
    tokenizer="byte",  # the rows hash whole words instead
    seq_len=48,
    rows=dict(name="tagged", labels=LABELS, buckets=2**15),
  )
  config.evals = dict(
    val=dict(
      name="entities",
      source="jsonl:data/wnut17/validation.jsonl",
      split="all",
      every_steps=200,
    ),
    test=dict(
      name="entities",
      source="jsonl:data/wnut17/test.jsonl",
      split="all",
      every_steps=0,
    ),
  )
  config.checkpoint = dict(every_steps=800, keep=2)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(vocab_size=64, dim=16),
      data=dict(source="fake:tagged", split="train", seq_len=12),
    )
    config.data.rows.buckets = 64
    for each in config.evals.values():
      each.update(source="fake:tagged", split="validation")
  return config
