r"""A decoder of 134M parameters on equal amounts of Chinese and English.

This is the mixture that GLM-130B was trained on, 200 billion tokens of each
language (Zeng et al. 2022, arXiv:2210.02414), with next-token prediction as the
objective. A tokenizer of 64,000 pieces is trained on the same number of lines
of both languages. The weights count rows of 1,024 tokens, and so tokens; each
language starts its next epoch when it is exhausted, independently of the other.
configs/data/web_zh_en.py prepares text of the web, whose folder is read by
prepared:DIR. Intended for eight accelerators and 10 billion tokens. Expected:
no figure is published for so small a model. Not measured here.
Planned by train.plan for v5e:2x4: 12.2 GB per chip, at most 1.29M tokens/s.

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
