r"""A crawl of Common Crawl from its list of paths, cleaned for language models.

  python -m input_pipeline.prepare --config=configs/data/common_crawl.py \
    --output=DIR --workers=0

The source is `warc.paths.gz`, which Common Crawl publishes for each crawl; a
list with a few of its lines works as well. `wet:wet.paths.gz?base=…` reads the
text that Common Crawl has extracted itself. The stages are those of web_zh_en,
and the text is tokenized; configs/language/lm_common_crawl.py trains on it.
"""

from ml_collections import ConfigDict

from configs.data import common


def get_config() -> ConfigDict:
  """The recipe."""
  config = common.recipe(
    "warc:warc.paths.gz?base=https://data.commoncrawl.org/",
    "common_crawl",
    common.clean_web_text(),
  )
  config.output.tokenizer = "sentencepiece?vocab_size=32000"
  config.card.origin = "Common Crawl, https://commoncrawl.org"
  config.card.licence = "the pages' own; Common Crawl's terms of use"
  return config
