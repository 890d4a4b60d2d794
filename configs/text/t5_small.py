r"""T5 small's pre-training by span corruption on C4 (arXiv:1910.10683).

60.5M parameters, 2^19 steps of 128 rows of 512 inputs, which is 2^35 tokens. As
in the paper, Adafactor's learning rate is 0.01 up to step 10^4 and then decays
as 1 / sqrt(n), and the vocabulary has 32,128 entries. Intended for eight
accelerators. Not measured here.

  python -m train.main --config=configs/text/t5_small.py \
    --config.data.source='jsonl:DIR/en/c4-train.*.json' \
    --config.evals.val.source='jsonl:DIR/en/c4-validation.*.json'
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 2**19
  config.batch_size = 128
  config.task = dict(name="sequence_to_sequence")
  config.model = dict(
    name="encoder_decoder",
    layers=6,
    dim=512,
    heads=8,
    hidden=2048,
    positions="relative",
    norm="rmsnorm",
    norm_eps=1e-6,
    norm_first=True,
    bias=False,
    scale_embeddings=False,
    scale_scores=False,
    scale_logits=True,
    dropout=0.1,
    vocab_size=32_128,
    dtype="bfloat16",
  )
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adafactor", lr=1e-2, schedule="rsqrt", warmup_steps=10_000
  )
  config.data = dict(
    source="jsonl:data/c4/en/c4-train.*.json",
    split="all",
    tokenizer="sentencepiece?vocab_size=32000&model_type=unigram",
    seq_len=568,  # 512 inputs and 114 targets after span corruption
    ops="span_corruption",
  )
  config.evals = dict(
    val=dict(
      name="mean",
      source="jsonl:data/c4/en/c4-validation.*.json",
      split="all",
      every_steps=10_000,
    )
  )
  config.checkpoint = dict(every_steps=5000, keep=3)
  config.mesh = dict(data=-1)
  config.sharding = [(".*", "fsdp")]
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(layers=2, dim=16, heads=2, hidden=32, vocab_size=384),
      data=dict(
        source="fake:text", split="train", tokenizer="byte", seq_len=16
      ),
    )
    config.evals.val.update(source="fake:text", split="validation")
    config.mesh = {"fsdp": -1}
  return config
