"""Named entities of WNUT 2017 (Derczynski et al.) by a linear CRF.

Six types of new and rare names in tweets and comments: 3,394 sentences for
training, 1,009 for validation and 1,287 for testing, without pre-trained
vectors. The features of a word and of two to each side are those of CRFsuite's
tutorial, hashed. The settings were chosen on the validation parts of this set
and of a random split of its training sentences, in which training and testing
are alike, as in most data of one's own. Measured on one
CPU core: val/f1 26.9 %, test/f1 19.17 % in about a minute. CRFsuite on the same
features, with penalties chosen in the same way
(benchmarks/language/entities.py): 24.54 and 18.01 %.

  python -m input_pipeline.fetch wnut17
  python -m train.main --config=configs/text/ner_wnut17.py --workdir=runs/ner
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
  config.total_steps = 500
  config.batch_size = 32
  config.task = dict(name="token_classification", crf=True)
  config.model = dict(
    name="tagger", vocab_size=2**19, dim=None, linear_window=2
  )
  config.learner = dict(name="supervised", ema=0.98)
  # With this eps, above the size of the gradients, Adam takes steps in
  # proportion to them: where every feature moves as far as the common ones,
  # rare ones explain the training words, and unseen words become O.
  config.optimizer = dict(
    name="adam",
    lr=1.0,
    eps=1e-2,
    schedule="cosine",
    warmup_steps=20,
    clip_norm=1.0,
  )
  config.data = dict(
    source="jsonl:data/wnut17/train.jsonl",
    split="all",
    tokenizer="byte",  # unused: the rows hash whole words
    seq_len=48,
    rows=dict(name="tagged", labels=LABELS, buckets=2**19),
  )
  config.evals = dict(
    val=dict(
      name="entities",
      source="jsonl:data/wnut17/validation.jsonl",
      split="all",
      every_steps=100,
    ),
    test=dict(
      name="entities",
      source="jsonl:data/wnut17/test.jsonl",
      split="all",
      every_steps=0,
    ),
  )
  config.early_stopping = dict(metric="val/f1", patience=4)
  config.checkpoint = dict(every_steps=400, keep=1, keep_best="val/f1")
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
