"""The types of the values of each field."""

from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count, worst
from input_pipeline.reporting import page

ORDER = 10

# Types that may occur in one field together.
_ALIKE = {"integer": "number", "number in text": "text"}
# Sources without types.
_UNTYPED = ("csv:",)


def schema(data: Dataset, settings: Settings) -> list[Finding]:
  """Fails for fields of mixed types, and warns for numbers written as text.

  Fails also if two splits have different fields.
  """
  del settings
  mixed, as_text = {}, []
  untyped = data.uri.startswith(_UNTYPED)
  for field, column in data.columns.items():
    odd = _odd(column, untyped)
    if odd:
      mixed[field] = odd
    elif column.kind == "number" and not untyped:
      texts = column.types.get("number in text", 0)
      if texts and texts == sum(column.types.values()):
        as_text.append(field)
  said = [
    f"{field!r} mixes {_counted(data.columns[field].types)}" for field in mixed
  ]
  if as_text:
    quoted = ", ".join(map(repr, as_text))
    said.append(f"numbers written as text in {quoted}")
  lone = _lone(data)
  said += [f"only one of the two splits has {field!r}" for field in lone]
  fields = count(len(data.columns), "field")
  line = f"{fields}: {'; '.join(said) or 'each has one type'}"
  verdict = worst(
    "fail" if mixed or lone else "ok", "warn" if as_text else "ok"
  )
  figures = {
    "fields": {
      field: {"kind": column.kind, "types": dict(column.types)}
      for field, column in data.columns.items()
    },
    "mixed": mixed,
    "not_in_both": lone,
    "numbers_as_text": as_text,
  }
  return [Finding("schema", verdict, line, figures, _parts(data, mixed))]


def _lone(data: Dataset) -> list[str]:
  """The fields that one of two splits lacks."""
  if data.against is None:
    return []
  return sorted(data.columns.keys() ^ data.against.columns.keys())


def _odd(column, untyped: bool) -> dict[str, int]:
  """{type: number of values} of the types that do not belong in a field."""
  types = dict(column.types)
  if column.kind == "number" and untyped:
    types.pop("number in text", None)
    return types if types.get("text") else {}
  alike = _ALIKE if column.kind != "number" else {"integer": "number"}
  together: dict[str, int] = {}
  for name, times in types.items():
    name = alike.get(name, name)
    together[name] = together.get(name, 0) + times
  if len(together) < 2:
    return {}
  common = max(together, key=lambda name: (together[name], name))
  return {name: n for name, n in together.items() if name != common}


def _counted(types) -> str:
  ordered = sorted(types.items(), key=lambda item: (-item[1], item[0]))
  return ", ".join(f"{name} ({times:,})" for name, times in ordered)


def _parts(data: Dataset, mixed: dict) -> list:
  rows = [
    (field, column.kind, _counted(column.types), int(column.blank.sum()))
    for field, column in data.columns.items()
  ]
  parts = [
    page.Table(("field", "kind", "types of the values", "missing"), rows)
  ]
  for field in mixed:
    found = data.columns[field].examples
    items = [
      f"{name}: {value}    ({data.name(row)})"
      for name, few in found.items()
      for row, value in few
    ]
    parts.append(page.Examples(f"Values of {field!r} by type", items))
  return parts
