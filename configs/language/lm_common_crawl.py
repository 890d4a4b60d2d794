r"""A decoder of 110M parameters on a web crawl that `prepare` has cleaned.

configs/data/common_crawl.py reads, filters, deduplicates and tokenizes the
pages with FineWeb's stages (Penedo et al. 2024, arXiv:2406.17557); this config
trains on the folder that it writes, which contains the text, its splits, the
tokens and the tokenizer, so that nothing is tokenized again. Intended for eight
accelerators and 10 billion tokens. Expected: no figure is published for so
small a model. Not measured here.
Planned by train.plan for v5e:2x4: at most 1.38M tokens/s.

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
