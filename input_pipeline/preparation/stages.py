"""The stages that a config names, in order, and the passes they make up."""

import functools
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from common import names
from input_pipeline import cleaning
from input_pipeline.document import Global, Stage


class Named(NamedTuple):
  """A stage and what the config calls it."""

  name: str
  stage: Stage | Global


class Pass(NamedTuple):
  """What is done to each shard between two looks at the whole corpus.

  judge: the Global before it, whose verdicts are carried out; or None.
  stages: of single documents, in order.
  summarize: the Global after it, that the shard is summarized for; or None.
  """

  judge: Named | None
  stages: list[Named]
  summarize: Named | None

  @property
  def names(self) -> list[str]:
    """Of what is done to a document, in order."""
    first = [self.judge] if self.judge else []
    return [each.name for each in [*first, *self.stages]]


def passes(settings: Sequence[Mapping[str, Any]]) -> list[Pass]:
  """The passes of config.stages, each an item dict(name=..., **settings).

  An item with skip=True is left out. The same name may come twice: the second
  is called NAME_2.

  Raises:
    ValueError: an unknown stage or setting, or a setting's value is wrong.
  """
  return _passes(json.dumps(list(settings)))


@functools.lru_cache(maxsize=4)
def _passes(settings: str) -> list[Pass]:
  found = [Pass(None, [], None)]
  names: dict[str, int] = {}
  for item in json.loads(settings):
    if item.get("skip"):
      continue
    stage = _build(item)
    count = names[item["name"]] = names.get(item["name"], 0) + 1
    name = item["name"] if count == 1 else f"{item['name']}_{count}"
    named = Named(name, stage)
    if isinstance(stage, Global):
      found[-1] = found[-1]._replace(summarize=named)
      found.append(Pass(named, [], None))
    else:
      found[-1].stages.append(named)
  return found


def _build(item: Mapping[str, Any]) -> Stage | Global:
  stages = names.discover(cleaning.__name__)
  name = item.get("name")
  function = None
  if isinstance(name, str) and name in stages:
    function = getattr(importlib.import_module(stages[name]), name, None)
  if function is None:
    raise ValueError(
      f"config.stages: there is no stage {name!r}{names.nearest(name, stages)}"
      " (a stage is a file in input_pipeline/cleaning/)"
    )
  arguments = {k: v for k, v in item.items() if k not in ("name", "skip")}
  known = list(inspect.signature(function).parameters)
  for key in arguments:
    if key not in known:
      raise ValueError(
        f"config.stages: {name} has no setting {key!r}"
        f"{names.nearest(key, known)} (there are: {', '.join(known)})"
      )
  try:
    return function(**arguments)
  except (TypeError, ValueError) as error:
    raise ValueError(f"config.stages: {name}: {error}") from None
