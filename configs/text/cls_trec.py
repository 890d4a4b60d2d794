"""What a question asks for, one of six kinds, by a convolutional network.

TREC's 5,452 questions, and 500 for the test (Li and Roth 2002), read by Kim's
network with word vectors drawn at random (arXiv:1408.5882: 91.2 %). Widths and
rates were chosen with every tenth question of the training set left out.
Measured on 2 CPU cores: test/accuracy 86.00 % in 12 s.

  python benchmarks/data/prepare_language.py --shared=DATA --output=data
  python -m train.main --config=configs/text/cls_trec.py --workdir=runs/trec
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 600
  config.batch_size = 64
  config.task = dict(name="text_classification")
  config.model = dict(
    name="text_cnn",
    dim=64,
    widths=(3, 4, 5),
    filters=64,
    word_dropout=0.1,
    dropout=0.5,
  )
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw", lr=2e-3, schedule="cosine", weight_decay=0.01
  )
  config.data = dict(
    source="jsonl:data/trec/train.jsonl",
    split="all",
    tokenizer="sentencepiece?vocab_size=4000",
    seq_len=40,
    rows=dict(
      name="labeled",
      labels=(
        "description",
        "entity",
        "abbreviation",
        "human",
        "location",
        "number",
      ),
    ),
  )
  config.evals = dict(
    test=dict(
      name="classification",
      source="jsonl:data/trec/test.jsonl",
      split="all",
      every_steps=0,
    ),
  )
  config.checkpoint = dict(every_steps=300, keep=1)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink_labeled(config, dim=4, filters=2)
  return config
