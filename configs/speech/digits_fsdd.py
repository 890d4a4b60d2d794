"""Spoken digits of the Free Spoken Digit Dataset (Jackson et al. 2018).

Ten digits, six speakers, 8 kHz; 2,700 recordings for training, of which a tenth
is held out for validation, and the official test set of 300. Measured on 2 CPU
cores: test/accuracy 98.33 %, val/accuracy 98.15 % in 1 min 34 s, 92 s of CPU
time. Of other methods, 97 to 99.3 % are published on various splits.

  python -m input_pipeline.fetch fsdd
  python -m train.main --config=configs/speech/digits_fsdd.py
"""

from ml_collections import ConfigDict

from configs import common

# Of the sounds in seconds, half are shorter than 0.4 and few longer than 1.
_FRAMES = 96
_FEATURES = "mono|log_mel(8000, mels=40)"


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake sounds."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 1000
  config.batch_size = 64
  config.task = dict(
    name="classification",
    inputs=("audio", "audio_mask"),
    label_smoothing=0.1,
  )
  config.model = dict(name="tdnn", widths=(64, 64, 64), dropout=0.2)
  config.learner = dict(name="supervised", ema=0.99)
  config.optimizer = dict(
    name="adamw",
    lr=2e-3,
    schedule="cosine",
    warmup_steps=50,
    weight_decay=0.05,
  )
  config.planned = dict(source="fake:audio?classes=10")
  config.data = dict(
    source="audio:data/fsdd",
    split="train[:90%]",
    ops=f"{_FEATURES}|crop_or_pad({_FRAMES})",
  )
  ops = f'{_FEATURES}|crop_or_pad({_FRAMES}, "center")'
  config.evals = dict(
    val=dict(
      name="classification", split="train[90%:]", ops=ops, every_steps=250
    ),
    test=dict(name="classification", split="test", ops=ops),
  )
  config.checkpoint = dict(every_steps=500, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    short = "mono|log_mel(8000, mels=8)|crop_or_pad(12, {})"
    common.shrink(
      config,
      batch_size=8,
      model=dict(widths=(8, 8), taps=(3, 3), dilations=(1, 2)),
      data=dict(source="fake:audio?n=40", ops=short.format('"random"')),
    )
    for each in config.evals.values():
      each.update(ops=short.format('"center"'))
  return config
