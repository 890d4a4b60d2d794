r"""Any labelled texts: topics, sentiment, intents, by words and characters.

fastText (Joulin et al., arXiv:1607.01759) on hashed n-grams of words (1 and 2)
and of characters within words (2 to 5), each kind with a mean of its own, so
that the many characters do not outvote the words. It needs no tokenizer, and
texts in scripts without spaces need no segmentation. Each line of FILE is
{"text": …, "label": …}; the classes are the distinct labels.

  python -m train.main --config=configs/text/cls_labeled.py \
    --config.data.source=jsonl:FILE --workdir=runs/mine

A tenth of the source, chosen once and for all, is held out for validation, by
which the run keeps its best checkpoint and stops early. If the validation data
is a file of its own, add --config.data.split=all
--config.evals.val.source=jsonl:FILE --config.evals.val.split=all. The same
settings serve configs/text/cls_sst2.py, cls_trec.py and cls_hotel.py, whose
docstrings have the figures.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.labeled_texts()
  if common.is_smoke(arg):
    common.shrink_labeled(config)
  return config
