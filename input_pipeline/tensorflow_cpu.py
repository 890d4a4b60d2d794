"""Imports TensorFlow for reading data."""

import os


def import_tensorflow():
  """Returns TensorFlow restricted to the CPU; JAX owns the accelerators."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  # oneDNN reorders sums depending on the machine, and warns on every start.
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  try:
    import tensorflow as tf
  except ImportError:
    raise ValueError(
      "ops need TensorFlow, which is not installed: pip install -e '.[data]'"
    ) from None
  if tf.config.get_visible_devices("GPU"):
    tf.config.set_visible_devices([], "GPU")
  return tf
