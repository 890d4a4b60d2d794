"""GloVe (Pennington et al., EMNLP 2014) on the validation text of WikiText-2.

Vectors of 100 dimensions from how often words stand within ten of each other;
the counts are made once and kept in the cache, and the test text is held out.
The vectors are in WORKDIR/words.txt, in word2vec's text format. Not measured
yet.

  python -m train.main --config=configs/glove.py \
    --config.data.source=text:PATH/valid.txt \
    --config.evals.val.source=text:PATH/test.txt --workdir=runs/glove
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 400
  config.batch_size = 64
  config.task = dict(name="glove", x_max=10.0, alpha=0.75)
  config.model = dict(name="word_vectors", dim=100, bias=True)
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adagrad",
    lr=0.05,
    # GloVe's own sums of squares begin at 1, of the gradients of lone entries;
    # here they are of the mean over a batch.
    initial_accumulator_value=(64 * 1024) ** -2.0,
    eps=1e-20,
  )
  config.data = dict(
    source="text:data/wikitext2/valid.txt",
    split="all",
    tokenizer="word?vocab_size=20000&min_count=5&lower=1",
    rows=dict(name="cooccurrence", window=10),
    seq_len=1024,  # entries of a row
  )
  config.evals = dict(
    val=dict(
      name="mean", source="text:data/wikitext2/test.txt", every_steps=200
    ),
    words=dict(
      name="word_vectors",
      words=("war", "film", "she", "city"),
      every_steps=0,
    ),
  )
  config.checkpoint = dict(every_steps=200, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(dim=8),
      data=dict(source="fake:text", tokenizer="word", seq_len=16),
    )
    config.evals.val.source = "fake:text?seed=1"
    config.evals["words"].update(words=("ba", "ce"), analogies=("ba ce di fo",))
  return config
