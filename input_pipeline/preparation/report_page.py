"""report.html: the results of `report.collect` as a page."""

from typing import Any

from input_pipeline.preparation import tally
from input_pipeline.reporting import page, plots
from input_pipeline.reporting.page import Examples, Figure, Section, Table, Text

_ROWS = 20
_RULES = 15
_FIELDS = {
  "name": "Name",
  "origin": "Origin",
  "licence": "Licence",
  "contact": "Contact",
  "purpose": "Purpose",
  "known_gaps": "Known gaps",
}
_NOT_STATED = "not given; set config.card."

Found = dict[str, Any]


def lines(found: Found) -> list[str]:
  """The main results in a few lines, also for the terminal."""
  records, before, after = found["records"], found["in"], found["out"]
  summary = [
    f"{records['records']:,} records read, {records['bad']:,} of them bad; "
    f"{after['documents']:,} documents written, "
    f"{_share(after['documents'], before['documents'])} of "
    f"{before['documents']:,}; {after['characters']:,} characters",
  ]
  if tally.lost(records):
    files = f"{records['lost']:,} file{'s' * (records['lost'] > 1)}"
    summary.append(f"the rest of {files} is lost: {tally.lost(records)}")
  ranked = _rules(found)[:3]
  if ranked:
    few = ", ".join(
      f"{stage}/{rule} {count:,}" for stage, rule, count in ranked
    )
    summary.append(f"most documents dropped by {few}")
  splits = ", ".join(
    f"{split} {count:,}" for split, (count, _) in after["splits"].items()
  )
  summary.append(f"splits: {splits or 'none'}")
  if found["tokens"]:
    summary.append(_tokens_line(found["tokens"]))
  return summary


def _tokens_line(tokens: Found) -> str:
  total = sum(tokens["splits"].values())
  line = f"{total:,} tokens ({tokens['tokenizer']})"
  if tokens["epochs"] is not None:
    line += f"; the configured run takes {tokens['epochs']:.2f} epochs"
  return line


def render(found: Found) -> str:
  """The page as HTML."""
  name = found["config"]["card"]["name"] or found["config"]["output"]["name"]
  sections = [
    _card(found),
    _stages(found),
    _dropped(found),
    _changed(found),
    _profiles(found),
    _clusters(found),
    _counts(found),
    _tokens(found),
    _bad(found),
  ]
  full = [section for section in sections if section.parts]
  return page.render(f"Data set: {name}", lines(found), full)


def _card(found: Found) -> Section:
  """The data card, as the GDPR's principle of transparency requires."""
  card = found["config"]["card"]
  rows = [
    (title, card[key] or f"{_NOT_STATED}{key}")
    for key, title in _FIELDS.items()
  ]
  rows += [
    ("Source", found["config"]["data"]["source"]),
    ("Stages", " → ".join(each["name"] for each in found["stages"])),
    ("Documents written", f"{found['out']['documents']:,}"),
    ("Personal data", _minimisation(found)),
  ]
  return Section("Data card", [Table(("", ""), rows)])


def _minimisation(found: Found) -> str:
  redacted = [each for each in found["stages"] if each["name"] == "redact"]
  if not redacted:
    return "not searched for, as there was no stage `redact`"
  counts = redacted[0]["counts"]
  total = sum(counts.values())
  return (
    f"{total:,} items were replaced in {redacted[0]['changed']:,} documents, "
    "both in the output and in the examples of this report"
  )


def _stages(found: Found) -> Section:
  rows = [
    (
      each["name"],
      each["seen"],
      each["kept"],
      each["changed"],
      sum(each["dropped"].values()),
      each["characters_in"],
      each["characters_out"],
    )
    for each in found["stages"]
  ]
  columns = ("stage", "documents", "kept", "changed", "dropped")
  table = Table((*columns, "characters in", "characters out"), rows)
  names = ["read", *(each["name"] for each in found["stages"])]
  left = [found["in"]["documents"]]
  for each in found["stages"]:
    left.append(each["seen"] - sum(each["dropped"].values()))
  figure = Figure(
    plots.bars(names, left, axis="documents"),
    "Number of documents after each stage",
  )
  languages = [
    (each["name"], language, seen, dropped, _share(dropped, seen))
    for each in found["stages"]
    for language, (seen, dropped) in _ranked(each["languages"])
    if dropped
  ]
  parts = [figure, table]
  if languages:
    columns = ("stage", "language", "documents", "dropped", "share")
    parts.append(
      Table(columns, languages, "Dropped documents by stage and language")
    )
  return Section("Stage by stage", parts)


def _rules(found: Found) -> list[tuple[str, str, int]]:
  """(stage, rule, documents dropped), the largest numbers first."""
  every = [
    (each["name"], rule, count)
    for each in found["stages"]
    for rule, count in each["dropped"].items()
  ]
  return sorted(every, key=lambda row: (-row[2], row[:2]))


def _dropped(found: Found) -> Section:
  ranked = _rules(found)
  if not ranked:
    return Section("Dropped documents", [])
  parts = [
    Figure(
      plots.bars(
        [f"{stage}/{rule}" for stage, rule, _ in ranked[:_RULES]],
        [count for _, _, count in ranked[:_RULES]],
        axis="documents dropped",
      ),
      "The rules that dropped most documents",
    ),
    Table(("stage", "rule", "documents"), ranked),
  ]
  samples = {
    each["name"]: each["samples"]["dropped"] for each in found["stages"]
  }
  for stage, rule, _ in ranked[:_RULES]:
    texts = [f"{s['id']}\n{s['text']}" for s in samples[stage].get(rule, ())]
    parts.append(Examples(f"Dropped by {stage}/{rule}", texts))
  return Section("Dropped documents", parts)


def _changed(found: Found) -> Section:
  return Section(
    "Changed documents",
    [
      Examples(
        f"Changed by {each['name']} ({each['changed']:,} documents)",
        [(s["before"], s["after"]) for s in each["samples"]["changed"]],
      )
      for each in found["stages"]
      if each["samples"]["changed"]
    ],
  )


def _profiles(found: Found) -> Section:
  before, after = found["in"], found["out"]
  parts: list[Any] = []
  bins = [int(key) for each in (before, after) for key in each["lengths"]]
  if bins and max(bins) > 0:
    span = range(min(bins), max(bins) + 1)
    labels = [f"{2 ** (n - 1) if n else 0:,}–" for n in span]
    series = {
      title: [each["lengths"].get(str(n), 0) for n in span]
      for title, each in (("input", before), ("output", after))
    }
    figure = plots.bars(labels, series, axis="documents")
    parts.append(
      Figure(figure, "Lengths in characters, with the lower end of each bin")
    )
  for key, title in (
    ("languages", "language"),
    ("sources", "source"),
    ("domains", "domain"),
    ("splits", "split"),
  ):
    parts += _table(before, after, key, title)
  return Section("Input and output", parts)


def _table(before: Found, after: Found, key: str, title: str) -> list[Table]:
  ranked = _ranked({**before[key], **after[key]})
  rows = [
    (name, *before[key].get(name, (0, 0)), *after[key].get(name, (0, 0)))
    for name, _ in ranked[:_ROWS]
  ]
  if not rows or (key == "splits" and list(after[key]) == ["train"]):
    return []
  more = len(ranked) - len(rows)
  note = f"and {more:,} more in report.json" if more else ""
  columns = ("documents in", "characters in", "documents out", "characters out")
  return [Table((title, *columns), rows, note)]


def _clusters(found: Found) -> Section:
  parts: list[Any] = []
  for each in found["stages"]:
    summary = each.get("summary") or {}
    simple = [(k, _cell(v)) for k, v in summary.items() if _is_simple(v)]
    if simple:
      parts.append(Table((each["name"], ""), simple))
    parts += _nested(each["name"], summary)
  return Section("Duplicates and statistics of the whole corpus", parts)


def _is_simple(value: Any) -> bool:
  """Whether a value fits into a cell: a scalar or a list of numbers."""
  if isinstance(value, list):
    return all(isinstance(each, (int, float)) for each in value)
  return not isinstance(value, dict)


def _nested(name: str, summary: Found) -> list[Any]:
  """Tables and examples of the lists and dicts in a Global's summary."""
  parts: list[Any] = []
  for key, value in summary.items():
    if _is_simple(value):
      continue
    title = f"{name}: {key.replace('_', ' ')}"
    if isinstance(value, dict) and value:
      rows = [(k, _cell(v)) for k, v in list(value.items())[:_ROWS]]
      parts.append(Table((title, ""), rows))
    elif value:
      texts = [
        "\n".join(f"{k}: {_cell(v)}" for k, v in item.items())
        if isinstance(item, dict)
        else _cell(item)
        for item in value[:_ROWS]
      ]
      parts.append(Examples(title, texts))
  return parts


def _cell(value: Any) -> Any:
  if isinstance(value, dict):
    return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
  if isinstance(value, list):
    mark = ", " if _is_simple(value) else "\n"
    return mark.join(str(_cell(each)) for each in value)
  return value


def _counts(found: Found) -> Section:
  rows = [
    (each["name"], kind, count)
    for each in found["stages"]
    for kind, count in sorted(each["counts"].items())
  ]
  return Section(
    "Counts of the stages",
    [Table(("stage", "kind", "count"), rows)] if rows else [],
  )


def _tokens(found: Found) -> Section:
  tokens = found["tokens"]
  if not tokens:
    size = found["out"]["bytes"]
    text = (
      f"No tokenizer was given. The text has {size:,} bytes, the number of "
      "tokens of the tokenizer `byte`."
    )
    return Section("Tokens", [Text(text)])
  rows = [
    (
      language,
      own["tokens"],
      round(own["tokens"] / max(1, own["words"]), 2),
      round(own["tokens"] / max(1, own["characters"]), 3),
      round(own["bytes"] / max(1, own["tokens"]), 2),
    )
    for language, own in sorted(tokens["languages"].items())
  ]
  columns = ("language", "tokens", "per word", "per character", "bytes/token")
  parts: list[Any] = [
    Text(_tokens_line(tokens)),
    Table(columns, rows, "Words are separated by white space."),
    Table(("split", "tokens"), list(tokens["splits"].items())),
  ]
  return Section("Tokens", parts)


def _bad(found: Found) -> Section:
  records = found["records"]
  if not records["bad"]:
    return Section("Bad records", [])
  reasons = [sample["reason"] for sample in records["samples"]]
  count = f"{records['bad']:,} of {records['records']:,}"
  return Section("Bad records", [Examples(count, reasons)])


def _ranked(values: Found) -> list[tuple[str, Any]]:
  return list(tally.largest(values).items())


def _share(part: float, whole: float) -> str:
  return f"{part / whole:.1%}" if whole else "none"
