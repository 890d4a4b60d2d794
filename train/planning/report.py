"""Prints a plan as tables on the terminal."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
  """Yields say(line), which shows the current activity on stderr."""
  console = Console(stderr=True)
  with console.status("planning") as status:
    yield status.update if console.is_terminal else console.log


def show(figures: Mapping[str, Any]) -> None:
  """Prints the figures of summary.plan and the settings that were tried."""
  console = Console(width=None if Console().is_terminal else 100)
  mesh = ", ".join(f"{k}={v}" for k, v in figures["mesh"].items())
  console.print(
    f"{figures['config']}: {figures['parameters']:,} parameters on"
    f" {figures['topology']} ({mesh}), batches of {figures['batch_size']:,}"
  )
  if figures["programs"] > 1:
    longest = figures["length"] and f", {figures['length']:,}"
    console.print(
      f"config.data.buckets: up to {figures['programs']} programs are compiled,"
      f" one for each length; this is that of the longest{longest or ''}."
    )
  if figures["by"] == "formula":
    console.print(
      "No compiler for this chip is available here: memory and communication"
      " are estimated by formula."
    )
  console.print(_memory(figures))
  for title, rows in _details(figures):
    table = Table("", "", title=title, title_justify="left", show_header=False)
    for name, value in rows:
      table.add_row(name, value)
    console.print(table)
  if figures.get("collectives"):
    console.print(_collectives(figures))
  if figures.get("knobs"):
    console.print(_knobs(figures["knobs"]))
  if figures.get("search"):
    console.print(_search(figures["search"]))


def _size(nbytes: float | None) -> str:
  if nbytes is None:
    return ""
  for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
    if nbytes >= scale / 10:
      return f"{nbytes / scale:,.3g} {unit}"
  return f"{nbytes:.0f} bytes"


def _share(memory) -> str:
  if not memory["limit"]:
    return _size(memory["peak"])
  share = memory["peak"] / memory["limit"]
  return f"{_size(memory['peak'])} of {_size(memory['limit'])} ({share:.0%})"


def _memory(figures) -> Table:
  memory = figures["memory"]
  verdict = "it fits" if figures["fits"] else "it does NOT fit"
  title = f"Memory per device, by {figures['by']}: {verdict}"
  table = Table("", "", title=title, title_justify="left", show_header=False)
  table.add_row("arguments (state and batch)", _size(memory["arguments"]))
  table.add_row("outputs", _size(memory["outputs"]))
  table.add_row("outputs that reuse arguments", _size(memory["aliased"]))
  table.add_row("temporaries", _size(memory["temporaries"]))
  table.add_row("peak", _share(memory))
  for tensor in figures["largest"][:8]:
    table.add_row(
      f"largest: {tensor['shape']} {tensor['operation']}",
      _size(tensor["nbytes"]),
    )
  return table


def _details(figures) -> Iterator[tuple[str, list[tuple[str, str]]]]:
  flops = figures["flops"]
  rows = [
    (f"model, by {flops['model_by']}", f"{flops['model']:.4g}"),
    ("executed, including rematerialization", f"{flops['executed']:.4g}"),
  ]
  if flops["compiler"]:
    title = "compiler's count (a scan's body counts once, kernels as 0)"
    rows.append((title, f"{flops['compiler']:.4g}"))
  yield "FLOPs per step", rows
  bound = figures.get("roofline")
  if bound:
    yield f"Roofline, bound by {bound['limit']}", _roofline(bound, figures)
  run = figures.get("run")
  if run:
    money = [] if run["money"] is None else [("cost", f"{run['money']:,.0f}")]
    yield (
      f"The entire run at this rate, {run['steps']:,} steps",
      [
        ("time", f"{run['hours']:,.1f} h"),
        ("chip-hours", f"{run['chip_hours']:,.0f}"),
        (
          f"energy at {run['watts']:.0f} W per chip ({run['watts_are']})",
          f"{run['kwh']:,.0f} kWh",
        ),
        *money,
      ],
    )


def _roofline(bound, figures) -> list[tuple[str, str]]:
  rows = [
    ("compute", f"{bound['compute_seconds']:.4f} s"),
    ("HBM", f"{bound['hbm_seconds']:.4f} s"),
  ]
  for axis, seconds in bound["interconnect_seconds"].items():
    rows.append((f"interconnect, {axis}", f"{seconds:.4f} s"))
  for axis in figures["uncounted"]:
    rows.append((f"interconnect, {axis}", "not covered by the formula"))
  if figures["bubble"]:
    bubble = f"{figures['bubble']:.1%} of each pass, not part of the bound"
    rows.append(("pipeline bubble", bubble))
  rows.append(("step, at least", f"{bound['step_seconds']:.4f} s"))
  if "tokens_per_second" in bound:
    rows.append(("tokens/s, at most", f"{bound['tokens_per_second']:,.0f}"))
  rows.append(("examples/s, at most", f"{bound['examples_per_second']:,.1f}"))
  rows.append(("MFU, at most", f"{bound['mfu']:.1%}"))
  return rows


def _collectives(figures) -> Table:
  table = Table(
    "mesh axis",
    "collective",
    "count",
    "tensors",
    "sent",
    title="Collectives per device and step",
    title_justify="left",
  )
  for axis, kinds in figures["collectives"].items():
    for kind, row in kinds.items():
      table.add_row(
        axis,
        kind,
        f"{row['count']:.0f}",
        _size(row["bytes"]),
        _size(row["sent_bytes"]),
      )
  return table


def _knobs(rows) -> Table:
  table = Table(
    "setting", "memory", "", title="Ways to save memory", title_justify="left"
  )
  for row in rows:
    if "error" in row:
      table.add_row(row["knob"], "", row["error"])
    else:
      verdict = "fits" if row["fits"] else "does not fit"
      table.add_row(row["knob"], _share(row["memory"]), verdict)
  return table


def _search(rows) -> Table:
  table = Table(
    "settings",
    "memory",
    "step",
    "MFU",
    "bound by",
    "by",
    title="Settings, fastest first",
    title_justify="left",
  )
  for row in rows:
    seconds = row["step_seconds"]
    table.add_row(
      row["knob"],
      _size(row["peak"]) if row["fits"] else f"{_size(row['peak'])}: too much",
      "" if seconds is None else f"{seconds:.4f} s",
      "" if row["mfu"] is None else f"{row['mfu']:.1%}",
      row["limit"] or "",
      row["by"],
    )
  return table
