"""A decoder of 134M parameters on the Chinese and the English Wikipedia.

Each language is sampled in proportion to its number of rows to the power 0.7,
so that the smaller one is seen more often, as in multilingual BERT (Devlin et
al. 2019). The sources are TFDS's, prepared with file_format="array_record"; any
files of records with a field "text" can take their place. Intended for eight
accelerators and 10 billion tokens, about one epoch of both languages.
Expected: no figure is published for so small a model. Not measured here.
Planned by train.plan for v5e:2x4: 12.2 GB per chip, at most 1.29M tokens/s.

  python -m train.main --config=configs/language/lm_wikipedia.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.language_model()
  config.data = dict(
    mixture=(
      dict(source="tfds:wikipedia/20230601.zh"),
      dict(source="tfds:wikipedia/20230601.en"),
    ),
    temperature=1 / 0.7,
    tokenizer="sentencepiece?vocab_size=64000&model_type=bpe",
    seq_len=1024,
  )
  if common.is_smoke(arg):
    common.shrink_mixture(config, hidden=32)
  return config
