"""The stages that a config names, divided into passes."""

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
  """A stage and its name in the config."""

  name: str
  stage: Stage | Global


class Pass(NamedTuple):
  """The work on each shard between two comparisons of the whole corpus.

  judge: the Global before the pass, whose verdicts are applied; or None.
  stages: the stages of single documents, in order.
  summarize: the Global after the pass, for which the shard is summarized; or
    None.
  """

  judge: Named | None
  stages: list[Named]
  summarize: Named | None

  @property
  def names(self) -> list[str]:
    """The names of the stages of a document, in order."""
    first = [self.judge] if self.judge else []
    return [each.name for each in [*first, *self.stages]]


def passes(settings: Sequence[Mapping[str, Any]]) -> list[Pass]:
  """The passes of config.stages, each an item dict(name=..., **settings).

  An item with skip=True is ignored. If a name occurs twice, the second stage is
  called NAME_2.

  Raises:
    ValueError: a stage or setting is unknown, or a value is wrong.
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
