"""word2vec by CBOW (arXiv:1301.3781) on the validation text of WikiText-2.

As configs/word2vec_skipgram.py, but a word is told from the mean of its
contexts, against the same noise. Not measured yet.

  python -m train.main --config=configs/word2vec_cbow.py \
    --config.data.source=text:PATH/valid.txt \
    --config.evals.val.source=text:PATH/test.txt --workdir=runs/cbow
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 2000
  config.batch_size = 16
  config.task = dict(
    name="word2vec", architecture="cbow", window=5, negatives=5
  )
  config.model = dict(name="word_vectors", dim=100)
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="sgd", lr=60.0, schedule="linear")
  config.data = dict(
    source="text:data/wikitext2/valid.txt",
    split="all",
    tokenizer="word?vocab_size=20000&min_count=5&lower=1",
    seq_len=64,
  )
  config.evals = dict(
    val=dict(
      name="mean", source="text:data/wikitext2/test.txt", every_steps=1000
    ),
    words=dict(
      name="word_vectors",
      words=("war", "film", "she", "city"),
      every_steps=0,
    ),
  )
  config.checkpoint = dict(every_steps=1000, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      task=dict(noise=8),
      model=dict(dim=8),
      data=dict(source="fake:text", tokenizer="word", seq_len=16),
    )
    config.evals.val.source = "fake:text?seed=1"
    config.evals["words"].update(words=("ba", "ce"), analogies=("ba ce di fo",))
  return config
