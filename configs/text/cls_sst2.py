"""Sentiment of sentences of film reviews by fastText.

The 6,920 whole sentences of SST-2 (Socher et al. 2013), without their phrases.
The model is a bag of pieces and pairs of pieces (Joulin et al.,
arXiv:1607.01759) with word dropout, whose rate was chosen on the 872 validation
sentences. Measured on 2 CPU cores: test/accuracy 80.83 % (validation 81.19 %)
in 9 s.

  python -m input_pipeline.fetch sst2
  python -m train.main --config=configs/text/cls_sst2.py --workdir=runs/sst2
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 800
  config.batch_size = 64
  config.task = dict(name="text_classification")
  config.model = dict(
    name="fasttext", dim=16, ngrams=2, buckets=2**16, word_dropout=0.3
  )
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="adam", lr=3e-3, schedule="cosine")
  config.data, config.evals = common.sst2(
    every_steps=200, pieces=8000, seq_len=64
  )
  config.checkpoint = dict(every_steps=400, keep=1)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink_labeled(config, dim=4, buckets=32)
  return config
