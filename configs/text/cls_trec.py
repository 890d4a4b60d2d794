"""The kind of answer that a question asks for, by a convolutional network.

TREC has 5,452 questions of six kinds for training and 500 for testing (Li and
Roth 2002). The network is Kim's with randomly initialized word vectors
(arXiv:1408.5882: 91.2 %). Widths and rates were chosen with every tenth
training question held out. Measured on 2 CPU cores: test/accuracy 86.00 % in
12 s.

  python -m input_pipeline.fetch trec
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
