r"""Chinese and English text for language models from web archives.

  python -m input_pipeline.prepare --config=configs/data/web_zh_en.py \
    --config.data.source='warc:crawl/*.warc.gz' --output=DIR --workers=0

Stages and thresholds are FineWeb's (Penedo et al. 2024, arXiv:2406.17557), with
counterparts by characters for Chinese. Personal data is redacted; near
duplicates are found by 112 hashes in 14 bands.
"""

from ml_collections import ConfigDict

from configs.data import common


def get_config() -> ConfigDict:
  """The recipe."""
  return common.recipe(
    "warc:crawl/**/*.warc.gz", "web_zh_en", common.clean_web_text()
  )
