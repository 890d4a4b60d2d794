"""GloVe (Pennington et al., EMNLP 2014) on the validation text of WikiText-2.

Vectors of 100 dimensions from how often words stand within ten of each other;
the counts are made once and kept in the cache, and the test text is held out.
The vectors are in WORKDIR/words.txt, in word2vec's text format. Measured on one
CPU core: val/loss 0.118 in 13 s; 0.112 after half as many steps, whose
neighbours make less sense.

  python -m train.main --config=configs/text/glove.py \
    --config.data.source=text:PATH/valid.txt \
    --config.evals.val.source=text:PATH/test.txt --workdir=runs/glove
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.word_vectors(total_steps=400)
  config.batch_size = 64
  config.task = dict(name="glove", x_max=10.0, alpha=0.75)
  config.model.bias = True
  config.optimizer = dict(
    name="adagrad",
    lr=0.05,
    # GloVe's own sums of squares begin at 1, of the gradients of lone entries;
    # here they are of the mean over a batch.
    initial_accumulator_value=(64 * 1024) ** -2.0,
    eps=1e-20,
  )
  config.data.update(
    rows=dict(name="cooccurrence", window=10),
    seq_len=1024,  # entries of a row
  )
  if common.is_smoke(arg):
    common.shrink_word_vectors(config)
  return config
