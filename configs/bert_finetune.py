"""Sentiment of film reviews by a BERT that was pre-trained on their sentences.

The body is that of configs/bert_small.py's run: its parameters have the same
paths, the head's are drawn. Measured on 2 CPU cores: FIGURE.

  python -m train.main --config=configs/bert_small.py --workdir=runs/bert_small
  python -m train.main --config=configs/bert_finetune.py \
    --init_from=runs/bert_small --workdir=runs/bert_finetune

Other ways to transfer are lines of a config:

  # From a file of weights, some parameters under other names, some not taken.
  config.init_from = dict(
    path="bert.safetensors", map=[("^bert/", "")], skip=["^position_embedding"]
  )
  # The body stays as it is (linear probe), or its embeddings alone do.
  config.optimizer.freeze = [r"^(?!head/)"]
  config.optimizer.freeze = [r"_embedding/"]
  # The lower a layer, the less it learns (arXiv:2003.10555).
  config.optimizer.layer_decay = 0.8
  # The head learns ten times as fast.
  config.optimizer.lr = [("^head/", 3e-3), (".*", 3e-4)]
  # Low-rank changes of the queries and values alone (arXiv:2106.09685).
  config.adapt = dict(name="lora", rank=8)
"""

from ml_collections import ConfigDict

from configs import bert_small, common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = bert_small.get_config()
  config.total_steps = 330
  config.batch_size = 64
  config.task = dict(name="text_classification")
  config.model.update(head="classes", dropout=0.3)
  config.optimizer.update(lr=1e-3, warmup_steps=50, weight_decay=0.1)
  config.data.rows = dict(name="labeled", labels=("negative", "positive"))
  config.data.ops = ""
  config.evals = {
    key: dict(
      name="classification",
      source=f"jsonl:data/sst2/{split}.jsonl",
      split="all",
      every_steps=110,
    )
    for key, split in (("val", "validation"), ("test", "test"))
  }
  config.evals.test.every_steps = 0
  config.checkpoint = dict(every_steps=110, keep=1)
  if common.is_smoke(arg):
    common.shrink_labeled(config, dim=16, heads=2, hidden=32)
  return config
