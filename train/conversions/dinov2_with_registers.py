"""DINOv2 with registers: Dinov2WithRegistersForImageClassification.

See arXiv:2309.16588. It is dinov2.py with further tokens. Images of another
size than that of config.json get smoother positions from transformers, whose
interpolation of this model weighs more neighbours.
"""

from train.conversions import vit
from train.conversions.dinov2 import body, dinov2
from train.conversions.parts.family import Size
from train.conversions.parts.layout import Row

_PREFIX = "dinov2_with_registers"


def _table(section) -> list[Row]:
  tokens = Row(f"{_PREFIX}.embeddings.register_tokens", "registers")
  return [*body(section, _PREFIX), tokens, *vit.head("classifier")]


def _written(section):
  found = dinov2.written(section)
  found.pop("use_mask_token")
  return found


dinov2_with_registers = dinov2._replace(
  sizes=(*dinov2.sizes, Size("num_register_tokens", "registers", 4)),
  table=_table,
  architecture=lambda section: "Dinov2WithRegistersForImageClassification",
  stem="Dinov2WithRegisters",
  prefix=f"{_PREFIX}.",
  written=_written,
  dropped=rf"{_PREFIX}\.embeddings\.mask_token",
)
