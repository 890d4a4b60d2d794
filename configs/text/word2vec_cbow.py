r"""word2vec's CBOW (arXiv:1301.3781) on the validation text of WikiText-2.

As configs/text/word2vec_skipgram.py, but each word is predicted from the mean
of its context, against the same noise. Measured on one CPU core: 2.476 nats on
the held-out text in 13 s; gensim 2.567 (benchmarks/language/word_vectors.py).

  python -m input_pipeline.fetch wikitext2
  python -m train.main --config=configs/text/word2vec_cbow.py \
    --workdir=runs/cbow
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.word2vec("cbow", lr=60.0)
  if common.is_smoke(arg):
    common.shrink_word_vectors(config, task=dict(noise=8))
  return config
