"""Questions on Wikipedia (SQuADShifts, Miller et al. 2020) from scratch.

A convolutional reader of 1.5M parameters is trained on 7,126 questions and
validated on 812 on other paragraphs (input_pipeline/datasets/newwiki.py).
Measured on one CPU core: val/exact_match 28.9, val/f1 45.0, and on XQuAD's
English 20.6 and 34.1, in 10 min. A sliding window without training
(benchmarks/language/sliding_window_qa.py) has 2.0 and 25.0, and 0.7 and 19.2.

  python -m input_pipeline.fetch newwiki xquad_en
  python -m train.main --config=configs/text/qa_newwiki.py --workdir=runs/qa
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 900
  config.batch_size = 32
  config.task = dict(name="question_answering")
  config.model = dict(name="qa_reader", dim=128)
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw",
    lr=2e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.05,
    clip_norm=1.0,
  )
  config.data = dict(
    source="jsonl:data/newwiki/train.jsonl",
    split="all",
    text_key="context",
    tokenizer="sentencepiece?vocab_size=8000",
    seq_len=256,
    rows=dict(name="questions", max_question=40, features=True),
  )
  config.evals = dict(
    val=dict(
      name="question_answering",
      source="jsonl:data/newwiki/validation.jsonl",
      split="all",
      every_steps=300,
    ),
    xquad=dict(
      name="question_answering",
      source="jsonl:data/xquad_en/test.jsonl",
      split="all",
      every_steps=0,
    ),
  )
  config.checkpoint = dict(every_steps=300, keep=2)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(dim=16, encode=(1,), decode=(1,)),
      data=dict(
        source="fake:questions",
        split="train",
        tokenizer="byte",
        seq_len=64,
      ),
    )
    config.data.rows.max_question = 24
    for each in config.evals.values():
      each.update(source="fake:questions", split="validation")
  return config
