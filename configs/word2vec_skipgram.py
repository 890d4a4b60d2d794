"""word2vec by skip-gram (arXiv:1310.4546) on Python's own standard library.

Vectors of 100 dimensions of the words and names of 1.3M words of source code,
which every machine with Python has; any text will do: --config.data.source=
text:PATH/*.txt. The vectors are in WORKDIR/words.txt, in word2vec's text
format. Measured on 2 CPU cores: MEASURED.

  python -m train.main --config=configs/word2vec_skipgram.py --workdir=runs/w2v
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 2000
  config.batch_size = 64
  config.task = dict(
    name="word2vec", architecture="skip_gram", window=5, negatives=5
  )
  config.model = dict(name="word_vectors", dim=100)
  config.learner = dict(name="supervised")
  config.optimizer = dict(name="adam", lr=3e-3, schedule="linear")
  config.data = dict(
    source="stdlib:",
    tokenizer="word?vocab_size=20000&min_count=5&lower=1",
    seq_len=64,
  )
  config.evals = dict(
    val=dict(name="mean", split="validation", every_steps=500),
    words=dict(
      name="word_vectors",
      words=("list", "socket", "open", "raise", "test", "january"),
      every_steps=0,
    ),
  )
  config.checkpoint = dict(every_steps=500, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      task=dict(noise=8),
      model=dict(dim=8),
      data=dict(source="fake:text", tokenizer="word", seq_len=16),
    )
    config.evals["words"].update(words=("ba", "ce"), analogies=("ba ce di fo",))
  return config
