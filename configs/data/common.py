"""What the recipes for web pages share."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def recipe(source: str, name: str, stages: list[dict]) -> ConfigDict:
  """A recipe with every section that `prepare` knows, to be overridden."""
  config = ConfigDict()
  config.data = dict(
    source=source,
    text_key="text",
    shard_bytes=2**25,
    max_bad_share=0.05,
    max_record_bytes=2**28,
  )
  # As ConfigDicts they take settings that are not there yet.
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
  """From pages to distinct, readable, harmless documents in zh and en.

  The order and the thresholds are FineWeb's (Penedo et al. 2024): of C4's
  rules that of terminal punctuation is left out. Chinese pages pass rules by
  characters in place of those by words. Three stages wait for what only a user
  has or wants, with skip=True: a model for perplexity, evaluation sets, and
  lines that many pages share.
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
