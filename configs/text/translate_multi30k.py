"""German to English by a small Transformer, on Multi30k (arXiv:1605.00459).

A pre-norm Transformer (arXiv:1706.03762) of 3 + 3 layers of width 256, one
vocabulary of 6,000 byte pairs for both languages, several pairs packed into
each row, about 10 epochs. Measured on 2 CPU cores that were shared with other
jobs, 47.7 minutes: on the 1,000 sentences of test 2016, BLEU 39.40 and chrF
58.48 with 5 beams, 37.99 and 57.32 with greedy decoding
(benchmarks/language/translation.py). Published small Transformers with byte
pairs: BLEU 35 to 39.

  python -m input_pipeline.fetch multi30k
  python -m train.main --config=configs/text/translate_multi30k.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 2400
  config.batch_size = 32
  config.task = dict(name="sequence_to_sequence", label_smoothing=0.1)
  config.model = dict(
    name="encoder_decoder",
    layers=3,
    dim=256,
    heads=4,
    hidden=512,
    norm_first=True,
    dropout=0.15,
    scan=False,  # unrolled layers run faster on a CPU
  )
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw",
    lr=1e-3,
    b2=0.98,
    schedule="cosine",
    warmup_steps=300,
    end_lr=1e-5,
    weight_decay=0.01,
    clip_norm=1.0,
  )
  config.data = dict(
    source="jsonl:data/multi30k/train.jsonl",
    split="all",
    tokenizer="sentencepiece?vocab_size=6000&model_type=bpe",
    seq_len=64,
    rows=dict(name="translation", source_key="de", target_key="en"),
  )
  config.evals = dict(
    val=dict(
      name="mean",
      source="jsonl:data/multi30k/validation.jsonl",
      split="all",
      every_steps=400,
    ),
    test=dict(
      name="text_generation",
      source="jsonl:data/multi30k/test.jsonl",
      split="all",
      reference="en",
      beams=5,
      attention=3,
      every_steps=0,
    ),
  )
  config.checkpoint = dict(every_steps=400, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink_pairs(config)
  return config
