"""DeiT: DeiTForImageClassificationWithTeacher and models/vision/vit.py.

See arXiv:2012.12877. It is the vision transformer of vit.py with a distillation
token, which has a last layer of its own.
"""

from train.conversions.parts.layout import Row
from train.conversions.vit import head, table_of, vit

_TOKEN = "deit.embeddings.distillation_token"


def _table(section) -> list[Row]:
  return [
    *table_of(section, "deit"),
    Row(_TOKEN, "distillation"),
    *head("cls_classifier"),
    *head("distillation_classifier", "distillation_head"),
  ]


deit = vit._replace(
  ours={**vit.ours, "distilled": True},
  table=_table,
  architecture=lambda section: "DeiTForImageClassificationWithTeacher",
  stem="DeiT",
  prefix="deit.",
  tops=("cls_classifier.", "distillation_classifier."),
  # A DeiTModel has a pooler and no classifiers.
  dropped=r"deit\.(pooler\.dense\.(weight|bias)|embeddings\.mask_token)",
  optional=r"(cls|distillation)_classifier\.(weight|bias)",
)
