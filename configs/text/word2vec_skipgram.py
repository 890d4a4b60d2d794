r"""word2vec's skip-gram (arXiv:1310.4546) on the validation text of WikiText-2.

Vectors of 100 dimensions, 12 passes over 167,000 words; the test text is held
out. WORKDIR/words.txt has the vectors in word2vec's text format. Training took
18 s of CPU time; benchmarks/language/word_vectors.py compares with gensim.

  python -m input_pipeline.fetch wikitext2
  python -m train.main --config=configs/text/word2vec_skipgram.py \
    --workdir=runs/w2v
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.word2vec("skip_gram", lr=75.0)
  if common.is_smoke(arg):
    common.shrink_word_vectors(config, task=dict(noise=8))
  return config
