r"""A decoder of 110M parameters on C4, English (Raffel et al. 2020).

The "Colossal Clean Crawled Corpus" of the paper (arXiv:1910.10683) as AllenAI
distributes it: en/c4-train.*.json.gz and en/c4-validation.*.json.gz, which must
be decompressed to .json first, because compressed files have no random access.
If TFDS has prepared it as array_record, the source tfds:c4/en has the same
splits. Intended for eight accelerators and 10 of the corpus's 156 billion
tokens. Expected: no figure is published for so small a model. Not measured
here.
Planned by train.plan for v5e:2x4: at most 1.38M tokens/s.

  python -m train.main --config=configs/language/lm_c4.py \
    --config.data.source='jsonl:DIR/en/c4-train.*.json' \
    --config.evals.val.source='jsonl:DIR/en/c4-validation.*.json'
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.language_model()
  config.data = dict(
    source="jsonl:data/c4/en/c4-train.*.json",
    split="all",
    tokenizer="sentencepiece?vocab_size=32000&model_type=unigram",
    seq_len=1024,
  )
  config.evals.val.update(
    source="jsonl:data/c4/en/c4-validation.*.json", split="all"
  )
  if common.is_smoke(arg):
    common.shrink_text(config, hidden=32)
    config.learner.microbatches = 1
    config.data.split = "train"
    config.evals.val.update(source="fake:text", split="validation")
  return config
