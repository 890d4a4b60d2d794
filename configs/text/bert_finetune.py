r"""Sentiment of film reviews by a BERT that was pre-trained on their sentences.

The body is initialized from a run of configs/text/bert_small.py, whose
parameters have the same paths; the head is initialized at random. Measured on
one CPU core: test/accuracy 76.83 % (validation 77.75) in 30 s. Without
--init_from 77.70 % (78.90): 6,920 sentences are too few for pre-training.
fastText, trained from scratch, has 80.62 % (cls_sst2).

  python -m input_pipeline.fetch sst2
  python -m train.main --config=configs/text/bert_small.py \
    --workdir=runs/bert_small
  python -m train.main --config=configs/text/bert_finetune.py \
    --init_from=runs/bert_small --workdir=runs/bert_finetune

Other kinds of transfer learning are one line of a config each:

  # Weights from a file: some parameters are renamed, and others left out.
  config.init_from = dict(
    path="bert.safetensors", map=[("^bert/", "")], skip=["^position_embedding"]
  )
  # The whole body is frozen (a linear probe), or the embeddings alone.
  config.optimizer.freeze = [r"^(?!head/)"]
  config.optimizer.freeze = [r"_embedding/"]
  # Lower layers have lower learning rates (arXiv:2003.10555).
  config.optimizer.layer_decay = 0.8
  # The head has ten times the learning rate.
  config.optimizer.lr = [("^head/", 3e-3), (".*", 3e-4)]
  # Low-rank updates of the queries and values alone (arXiv:2106.09685).
  config.adapt = dict(name="lora", rank=8)
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 330
  config.batch_size = 64
  config.task = dict(name="text_classification")
  config.model = dict(
    name="bert",
    head="classes",
    layers=2,
    dim=64,
    heads=4,
    hidden=128,
    pooling="mean",
    word_dropout=0.3,
    dropout=0.3,
    scan=False,
  )
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw",
    lr=2e-3,
    schedule="cosine",
    warmup_steps=50,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  # The data and the number of pieces of pre-training give its tokenizer.
  config.data, config.evals = common.sst2(
    every_steps=110, pieces=4000, seq_len=48
  )
  config.checkpoint = dict(every_steps=110, keep=1)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink_labeled(config, dim=16, heads=2, hidden=32)
  return config
