"""Sections and stages that several recipes share."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def recipe(source: str, name: str, stages: list[dict]) -> ConfigDict:
  """A recipe with every section that `prepare` reads, with its defaults."""
  config = ConfigDict()
  config.data = dict(
    source=source,
    text_key="text",
    shard_bytes=2**25,
    # "skip" keeps what was read of a file that cannot be read to its end.
    on_bad_record="stop",
    max_bad_share=0.05,
    max_record_bytes=2**28,
  )
  # ConfigDicts accept settings that are not listed, on the command line.
  config.stages = [ConfigDict(stage, type_safe=False) for stage in stages]
  config.output = dict(
    name=name,
    tfds=False,
    shard_bytes=2**28,
    tokenizer=placeholder(str),
  )
  config.card = dict(
    name="", origin="", licence="", contact="", purpose="", known_gaps=""
  )
  config.run = dict(
    total_steps=placeholder(int),
    batch_size=placeholder(int),
    seq_len=placeholder(int),
  )
  return config


def clean_web_text() -> list[dict]:
  """Stages from pages to filtered, deduplicated documents in zh and en.

  The order and the thresholds are FineWeb's (Penedo et al. 2024), which leaves
  out C4's rule on terminal punctuation. Rules that count words are replaced by
  rules that count characters for Chinese. Three stages are off (skip=True)
  because they need input from the user: `perplexity` a model,
  `contamination` evaluation sets, and `duplicate_lines` a decision.
  """
  return [
    dict(name="extract"),
    dict(name="normalize"),
    dict(name="language", keep=("zh", "en")),
    dict(name="gopher_repetition", languages=("en",)),
    dict(name="gopher_quality", languages=("en",)),
    dict(name="c4", languages=("en",), terminal_mark=False),
    dict(name="fineweb", languages=("en",)),
    dict(name="chinese_quality", languages=("zh",)),
    dict(name="perplexity", model="", skip=True),
    dict(name="redact"),
    dict(name="exact_duplicates"),
    dict(name="duplicate_lines", skip=True),
    dict(name="near_duplicates"),
    dict(name="contamination", skip=True),
    dict(name="split", fractions=dict(validation=0.005, test=0.005)),
  ]
