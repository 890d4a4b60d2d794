"""A decoder of 134M parameters on Chinese and English, half and half.

The mixture that GLM-130B was trained on: 200 billion tokens of each language
(Zeng et al. 2022, arXiv:2210.02414). Here the objective is the next token, and
a tokenizer of 64,000 pieces is learned from as many lines of both. Weights
count rows of 1,024 tokens, and so tokens; each language begins its next epoch
when it has ended one, whatever the other does. Text of the web comes from
configs/data/web_zh_en.py; a prepared folder is prepared:DIR. Meant for eight
accelerators, 10 billion tokens. Expected: no figure is published for so small
a model. Not measured here.
By train.plan, v5e:2x4: 12.2 GB a chip, at most 1.29M tokens/s.

  python -m train.main --config=configs/language/lm_zh_en.py \
    --config.data.mixture="({'source': 'jsonl:ZH/*.jsonl', 'weight': 1},
      {'source': 'jsonl:EN/*.jsonl', 'weight': 1})"
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.language_model()
  config.data = dict(
    mixture=(
      dict(source="jsonl:data/zh/*.jsonl", weight=1.0),
      dict(source="jsonl:data/en/*.jsonl", weight=1.0),
    ),
    tokenizer="sentencepiece?vocab_size=64000&model_type=bpe",
    seq_len=1024,
  )
  if common.is_smoke(arg):
    common.shrink_mixture(config, hidden=32)
  return config
