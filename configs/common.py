"""What every config shares: the meaning of its argument."""

from ml_collections import ConfigDict


def is_smoke(arg: str) -> bool:
  """Whether `FILE.py:ARG` asks for the tiny version on fake data.

  Raises:
    ValueError: ARG is neither "" nor "smoke".
  """
  if arg not in ("", "smoke"):
    raise ValueError(f"argument {arg!r} of the config is not 'smoke'")
  return arg == "smoke"


def shrink(config: ConfigDict, **sections) -> None:
  """Makes `config` tiny: a few steps, and what `sections` replaces.

  A dict is merged into its section; any other value replaces it.
  """
  config.total_steps = 4
  config.log_every_steps = 1
  config.checkpoint = {"every_steps": 2, "keep": 2}
  for key in config.get("evals", {}):
    config.evals[key].every_steps = 2
  for section, values in sections.items():
    if isinstance(values, dict) and section in config:
      config[section].update(values)
    else:
      config[section] = values


def shrink_text(config: ConfigDict, **model) -> None:
  """`shrink` for a decoder's pre-training: 16 bytes through two small layers.

  `model` replaces what is particular to it.
  """
  shrink(
    config,
    batch_size=8,
    task=dict(loss_chunk=8),
    model=dict(vocab_size=256, layers=2, dim=16, heads=2, **model),
    data=dict(source="fake:text", tokenizer="byte", seq_len=16),
  )
  # A laptop has not the devices that the full size is laid out for.
  config.mesh = {"fsdp": -1}
