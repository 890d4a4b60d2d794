"""The next word from one word: embedding 64, 128 relu units, 10,000 words.

Tiny shakespeare's words, Adam at 1e-3, ten passes. A row is a window of 16
words, each of which predicts the next, and a batch has 64 rows. Measured:
val/loss 5.237 nats a word, 2.264 bits a byte, in 3.8 min on a busy CPU.

  python -m input_pipeline.fetch tinyshakespeare
  python -m train.main --config=configs/textbook/next_word.py

The model gives logits, and the loss takes them. A softmax as its last layer,
before a loss that takes logits, is applied twice: the loss cannot fall below
log(1 + (V - 1) / e), which of 10,000 words is 8.21, hardly less than that of a
guess, 9.21.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = common.characters(
    batch_size=64, seq_len=16, total_steps=1850, lr=1e-3
  )
  config.model = dict(
    name="bengio",
    order=2,
    dim=64,
    hidden=128,
    activation="relu",
    direct=False,
  )
  config.optimizer = dict(name="adam", lr=1e-3)
  config.log_every_steps = 100
  config.data.tokenizer = "word?vocab_size=10000"
  config.evals.val.every_steps = 185
  config.evals.text.update(prompt="the", length=40)
  if common.is_smoke(arg):
    common.shrink_characters(config, dim=4, hidden=8)
    config.data.tokenizer = "word"
  return config
