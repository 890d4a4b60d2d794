"""Chinese questions on Wikipedia (XQuAD, Artetxe et al. 2020) from scratch.

899 questions on 36 articles for training, 291 on the other 12 for testing
(input_pipeline/datasets/xquad_zh.py). Scores are by characters, as in MLQA's
script. Measured on one CPU core: test/exact_match 38.1, test/f1 47.7 in
3.1 min. A sliding window (benchmarks/language/sliding_window_qa.py) has 1.0 and
20.1.

  python -m input_pipeline.fetch xquad_zh
  python -m train.main --config=configs/text/qa_xquad_zh.py --workdir=runs/qa_zh
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 600
  config.batch_size = 32
  config.task = dict(name="question_answering")
  config.model = dict(name="qa_reader", dim=64, dropout=0.4)
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw",
    lr=2e-3,
    schedule="cosine",
    warmup_steps=50,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  config.data = dict(
    source="jsonl:data/xquad_zh/train.jsonl",
    split="all",
    text_key="context",
    # Each Chinese character is encoded on its own (offsets.py).
    tokenizer="sentencepiece?vocab_size=3000&model_type=bpe",
    seq_len=320,
    rows=dict(name="questions", max_question=48, features=True),
  )
  config.evals = dict(
    test=dict(
      name="question_answering",
      source="jsonl:data/xquad_zh/test.jsonl",
      split="all",
      language="zh",
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
    config.evals.test.update(source="fake:questions", split="validation")
  return config
