r"""The main text of web pages and its language, without any filter.

  python -m input_pipeline.prepare --config=configs/data/extract_only.py \
    --config.data.source='html:PAGES/**/*.html' --output=DIR --documents

The text is extracted by trafilatura (Barbaresi, ACL 2021).
"""

from ml_collections import ConfigDict

from configs.data import common


def get_config() -> ConfigDict:
  """The recipe."""
  stages = [dict(name="extract"), dict(name="language", keep=None)]
  return common.recipe("html:pages/**/*.html", "pages", stages)
