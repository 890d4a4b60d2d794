"""A decoder of 110M parameters on a crawl that `prepare` has cleaned.

The second half of configs/data/common_crawl.py, which reads the pages, judges,
deduplicates and tokenizes them: its folder gives text, splits, tokens and
tokenizer, and nothing is tokenized again. The stages are FineWeb's (Penedo et
al. 2024, arXiv:2406.17557). Meant for eight accelerators, 10 billion tokens.
Expected: no figure is published for so small a model. Not measured here.
By train.plan, v5e:2x4: at most 1.38M tokens/s.

  python -m input_pipeline.prepare --config=configs/data/common_crawl.py \
    --output=DIR
  python -m train.main --config=configs/language/lm_common_crawl.py \
    --config.data.source=prepared:DIR --config.data.tokenizer=prepared:DIR
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.language_model()
  config.data = dict(
    source="prepared:data/common_crawl",
    tokenizer="prepared:data/common_crawl",
    seq_len=1024,
  )
  if common.is_smoke(arg):
    common.shrink_text(config, hidden=32)
    config.learner.microbatches = 1
  return config
